from pathlib import Path

import pytest

from train import trainer
from train.recipe import Recipe, load


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: {base: tiny}\ndata: {train: x}\n")
    return load(path, overrides, {})


def test_what_must_not_be_left_to_defaults_is_set(tmp_path: Path) -> None:
    arguments = trainer.arguments(recipe(tmp_path), "cpu", tmp_path, parameters=1)
    assert arguments["router_aux_loss_coef"] == 0.0
    assert arguments["ddp_find_unused_parameters"] is False
    assert arguments["activation_checkpointing_kwargs"] == {"use_reentrant": False}
    assert arguments["per_device_train_batch_size"] == 1
    assert arguments["logging_nan_inf_filter"] is False


@pytest.mark.parametrize(
    ("override", "parameters", "recomputed"),
    [
        ("training.gradient_checkpointing=auto", 10**6, False),
        ("training.gradient_checkpointing=auto", 10**10, True),
        ("training.gradient_checkpointing=true", 10**6, True),
        ("training.gradient_checkpointing=false", 10**10, False),
    ],
)
def test_activations_of_large_models_are_recomputed_unless_the_recipe_says_otherwise(
    tmp_path: Path, override: str, parameters: int, recomputed: bool
) -> None:
    arguments = trainer.arguments(
        recipe(tmp_path, override), "cpu", tmp_path, parameters=parameters
    )
    assert arguments["activation_checkpointing"] is recomputed


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (61, "1 min 01 s"), (3600 * 26 + 61, "26 h 01 min")]
)
def test_the_time_left_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert trainer.duration(seconds) == text


def test_the_weights_of_the_chosen_checkpoint_are_kept_and_no_pickle(tmp_path: Path) -> None:
    for step in (1, 2):
        folder = tmp_path / f"checkpoints/checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").touch()
        (folder / "adapter_model.safetensors").write_text(str(step))
        (folder / "training_args.bin").touch()
    trainer.keep(tmp_path, 1, full=False)
    kept = trainer.keep(tmp_path, 2, full=False)
    assert (kept / "adapter_model.safetensors").read_text() == "2"
    assert {p.name for p in kept.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert {p.name for p in tmp_path.iterdir()} == {"adapter", "checkpoints"}

from pathlib import Path
from typing import Any

import pytest

from train import sft
from train.dataset import convert
from train.errors import InputError
from train.model import Base, load_model
from train.recipe import DataConfig, Recipe, load

ROOT = Path(__file__).parents[2]


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: {base: tiny}\ndata: {train: x}\nlora: {r: 4}\n")
    return load(path, overrides, {})


def test_an_expert_parameter_that_matches_nothing_is_refused(tmp_path: Path, base: Base) -> None:
    wrong = recipe(tmp_path, "lora.target_parameters=[mlp.experts.gate_proj]")
    with pytest.raises(InputError, match=r"mlp\.experts\.gate_proj matches no parameter"):
        sft.lora(load_model(base), wrong)


def test_what_must_not_be_left_to_defaults_is_set(tmp_path: Path) -> None:
    arguments = sft.arguments(recipe(tmp_path), "cpu", tmp_path)
    assert arguments.router_aux_loss_coef == 0.0
    assert arguments.ddp_find_unused_parameters is False
    assert arguments.activation_checkpointing_kwargs == {"use_reentrant": False}
    assert arguments.assistant_only_loss is True
    assert arguments.packing_strategy == "bfd"
    assert arguments.per_device_train_batch_size == 1


@pytest.mark.slow
def test_training_on_packs_lowers_the_loss_of_the_answers_and_logs_no_router_loss(
    tmp_path: Path, base: Base, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from itertools import islice

    from train.evaluate import loss
    from train.run import read

    convert([ROOT / "data/chat_messages.jsonl"], DataConfig(train=""), tmp_path, "train")
    small = recipe(
        tmp_path,
        "training.max_steps=12",
        "training.learning_rate=1e-2",
        "training.packs_per_step=1",
        "training.max_length=512",
        "training.logging_steps=1",
        "lora.target_parameters=[mlp.experts.gate_up_proj,mlp.experts.down_proj]",
    )
    rows = list(islice(read(tmp_path / "train.parquet"), 8))
    model = load_model(base)
    before = loss(model, tokenizer, rows, {})
    with caplog.at_level("INFO"):
        measured = sft.train_adapter(
            model, tokenizer, tmp_path / "train.parquet", small, "cpu", tmp_path
        )
    assert loss(model, tokenizer, rows, {}) < before - 0.3
    assert measured["steps"] == 12
    assert measured["first_loss"] < before + 0.5  # the router's loss would add 3.6
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()
    assert "step 12/12" in caplog.text

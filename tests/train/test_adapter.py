from pathlib import Path

import pytest

from train import adapter
from train.errors import InputError
from train.model import Base, load_model
from train.recipe import Recipe, load


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: {base: tiny}\ndata: {train: x}\nlora: {r: 4}\n")
    return load(path, overrides, {})


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "lora.target_parameters=[mlp.experts.gate_proj]",
            r"target_parameters: mlp\.experts\.gate_proj matches no parameter",
        ),
        ("lora.target_modules=[q_proj, qproj]", "target_modules: qproj matches no module"),
    ],
)
def test_a_target_that_matches_nothing_is_refused(
    tmp_path: Path, base: Base, override: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        adapter.config(load_model(base), recipe(tmp_path, override))


def test_targets_may_name_one_layer_or_one_kind_of_module(tmp_path: Path, base: Base) -> None:
    made = adapter.config(
        load_model(base),
        recipe(
            tmp_path,
            "lora.target_modules=[q_proj]",
            "lora.target_parameters=[1.mlp.experts.down_proj]",
        ),
    )
    assert made.target_modules == {"q_proj"}
    assert made.r == 4


def test_a_full_fine_tune_has_no_adapter(tmp_path: Path, base: Base) -> None:
    assert adapter.config(load_model(base), recipe(tmp_path, "tuning=full")) is None


def test_an_earlier_adapter_is_merged_in_whenever_the_base_is_loaded(
    tmp_path: Path, base: Base
) -> None:
    import dataclasses

    import torch
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(load_model(base), LoraConfig(target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.fill_(0.05)
    tuned.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(100, 120)[None]
    started = load_model(dataclasses.replace(base, adapter=str(tmp_path / "adapter")))
    with torch.inference_mode():
        torch.testing.assert_close(
            started(input_ids=ids).logits, tuned(input_ids=ids).logits, atol=1e-4, rtol=0
        )
        assert (started(input_ids=ids).logits - load_model(base)(input_ids=ids).logits).abs().max()


def test_a_folder_without_an_adapter_is_one_sentence(tmp_path: Path, base: Base) -> None:
    with pytest.raises(InputError, match=r"model\.adapter: .* has no adapter_config\.json"):
        adapter.merge_earlier(load_model(base), str(tmp_path))

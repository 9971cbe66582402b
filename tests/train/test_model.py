from pathlib import Path
from typing import Literal

import pytest
import torch

from train.errors import InputError
from train.model import resolve
from train.recipe import DataConfig, ModelConfig, Recipe


def recipe(base: str, tuning: Literal["lora", "qlora", "full"] = "lora") -> Recipe:
    return Recipe(name="x", model=ModelConfig(base=base), data=DataConfig(train="x"), tuning=tuning)


def test_gpt_oss_gets_eager_attention_and_every_choice_is_said(
    random_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with caplog.at_level("INFO"):
        base = resolve(recipe(str(random_model)), random_model)
    assert (base.attention, base.device) == ("eager", "cpu")
    assert "device: cpu (no NVIDIA GPU found)" in caplog.text


def test_training_is_in_bfloat16_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, random_model: Path
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for supported, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda s=supported: s)
        base = resolve(recipe(str(random_model)), random_model)
        assert (base.dtype, base.publish) == (dtype, dtype)


def test_all_weights_are_trained_in_float32_and_published_in_the_smaller_dtype(
    monkeypatch: pytest.MonkeyPatch, random_model: Path
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    base = resolve(recipe(str(random_model), "full"), random_model)
    assert (base.dtype, base.publish, base.autocast) == ("float32", "bfloat16", True)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        resolve(recipe(str(tmp_path)), tmp_path)


def test_a_hub_model_out_of_reach_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody/nothing could not be loaded") as caught:
        resolve(recipe("nobody/nothing"), tmp_path)
    assert "\n" not in str(caught.value)

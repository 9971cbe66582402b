from pathlib import Path
from typing import Any

import pytest
import torch

from train.errors import InputError
from train.model import Base, load_model, resolve
from train.recipe import ModelConfig


def packed_and_separate(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (tokens, vocabulary) of two rows in one pack, and of the same rows one by one."""
    rows = [torch.arange(40, 60)[None], torch.arange(300, 330)[None]]
    pack = torch.cat(rows, dim=1)
    positions = torch.cat([torch.arange(row.shape[1]) for row in rows])[None]
    with torch.inference_mode():
        packed = model(input_ids=pack, position_ids=positions, use_cache=False).logits[0]
        separate = [model(input_ids=row, use_cache=False).logits[0] for row in rows]
    return packed, torch.cat(separate)


def test_rows_of_a_pack_do_not_see_each_other(base: Base) -> None:
    packed, separate = packed_and_separate(load_model(base))
    torch.testing.assert_close(packed, separate, atol=1e-4, rtol=0)


def test_without_the_hook_gpt_oss_would_mix_the_rows_of_a_pack(base: Base) -> None:
    """If this fails, transformers hands over `position_ids` itself and the hook can go."""
    model = load_model(base)
    model.get_decoder()._forward_pre_hooks.clear()
    packed, separate = packed_and_separate(model)
    assert (packed - separate)[20:].abs().max() > 1e-2


def test_generation_is_not_changed_by_the_hook(base: Base) -> None:
    model = load_model(base)
    prompt = torch.arange(40, 60)[None]
    hooked = model.generate(input_ids=prompt, max_new_tokens=20, do_sample=False)
    model.get_decoder()._forward_pre_hooks.clear()
    assert torch.equal(hooked, model.generate(input_ids=prompt, max_new_tokens=20, do_sample=False))


def test_gpt_oss_gets_eager_attention_and_a_cpu_gets_float32(
    random_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with caplog.at_level("INFO"):
        base = resolve(ModelConfig(base=str(random_model)), random_model)
    assert (base.attention, base.dtype, base.device) == ("eager", "float32", "cpu")
    assert "device: cpu (no NVIDIA GPU found)" in caplog.text


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        resolve(ModelConfig(base=str(tmp_path)), tmp_path)


def test_a_hub_model_out_of_reach_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody/nothing could not be loaded") as caught:
        resolve(ModelConfig(base="nobody/nothing"), tmp_path)
    assert "\n" not in str(caught.value)

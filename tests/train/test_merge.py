import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from train import logits
from train import merge as merging
from train.errors import VerificationError
from train.model import Base, load_model

ROWS = [
    [
        {"role": "user", "content": "首都は？"},
        {"role": "assistant", "content": "キャンベラです。", "thinking": "国の都市だ。"},
    ]
]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.fixture
def adapter(base: Base, tmp_path: Path) -> Path:
    """An adapter on attention and experts whose weights are far from zero."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules="all-linear", target_parameters=EXPERTS)
    model = get_peft_model(load_model(base), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def merge(base: Base, tokenizer: Any, adapter: Path) -> tuple[Any, dict[str, Any]]:
    return merging.publish(base, tokenizer, adapter, adapter.parent / "merged", ROWS, {})


def test_the_merged_model_reloads_and_answers_as_base_and_adapter_do(
    base: Base, tokenizer: Any, adapter: Path
) -> None:
    merged, check = merge(base, tokenizer, adapter)
    assert check["difference"] < check["tolerance"]
    ids = torch.arange(100, 120)[None]
    changed = merged(input_ids=ids).logits - load_model(base)(input_ids=ids).logits
    assert changed.abs().max() > 0.1  # the adapter is in it


def test_the_merged_folder_is_readable_for_a_server_under_another_uid(
    base: Base, tokenizer: Any, adapter: Path
) -> None:
    merge(base, tokenizer, adapter)
    folder = adapter.parent / "merged"
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_a_merged_folder_that_answers_differently_is_not_published(
    base: Base, tokenizer: Any, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(logits.TOLERANCE, "float32", -1.0)
    with pytest.raises(VerificationError, match="answers differently from what was trained"):
        merge(base, tokenizer, adapter)
    assert not (adapter.parent / "merged").exists()


def test_lost_experts_are_found_when_the_folder_is_reloaded(
    base: Base, tokenizer: Any, adapter: Path
) -> None:
    """What saving gpt-oss in its original format does: experts without the names that reload."""
    from safetensors.torch import load_file, save_file

    merge(base, tokenizer, adapter)
    folder = adapter.parent / "merged"
    weights = load_file(folder / "model.safetensors")
    renamed = {k.replace("down_proj", "down_proj_blocks"): v for k, v in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VerificationError, match="missing keys"):
        merging.verify(base, folder, [], [], ([], []))


def test_another_greedy_answer_is_found_even_where_the_probed_logits_agree(
    base: Base, tokenizer: Any, adapter: Path
) -> None:
    merged, check = merge(base, tokenizer, adapter)
    assert check["sample_tokens"] > 0
    assert check["sample_gap"] <= 1e-4
    ids = list(range(100, 120))
    found = merging._logits(merged, ids)
    unlikely = int(found[-1].argmin())
    with pytest.raises(VerificationError, match="gives another greedy answer"):
        merging.verify(base, adapter.parent / "merged", [ids], [found], (ids, [unlikely, unlikely]))


def test_the_default_way_of_saving_a_dequantised_gpt_oss_loses_its_experts(
    base: Base, tmp_path: Path
) -> None:
    """Why `save_original_format=False` is set: if this fails, transformers has mended it."""
    from transformers import AutoModelForCausalLM

    quantised = tmp_path / "mxfp4"
    mxfp4_checkpoint(base, quantised)
    packed = dataclasses.replace(base, path=str(quantised), dequantise=True)
    load_model(packed).save_pretrained(tmp_path / "default")
    load_model(packed).save_pretrained(tmp_path / "ours", save_original_format=False)
    for name, lost in (("default", True), ("ours", False)):
        _, loading = AutoModelForCausalLM.from_pretrained(tmp_path / name, output_loading_info=True)
        assert bool(loading["missing_keys"]) is lost, name


def mxfp4_checkpoint(base: Base, folder: Path) -> None:
    """`base` with its experts in MXFP4 (blocks of 32 E2M1 values and an E8M0 scale), any values."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base.path, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            *("model.layers.*.self_attn", "model.layers.*.mlp.router"),
            *("model.embed_tokens", "lm_head"),
        ],
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in [n for n in weights if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, inner, outer = weights.pop(name).shape
        shape = (experts, outer, inner // 32)
        weights[f"{name}_blocks"] = torch.randint(
            256, (*shape, 16), dtype=torch.uint8, generator=generator
        )
        weights[f"{name}_scales"] = torch.full(shape, 118, dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

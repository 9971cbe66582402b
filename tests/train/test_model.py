import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch

from train.errors import InputError
from train.model import load_model, load_tokenizer, resolve
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


OWN_CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
class Config: pass
"""


@pytest.mark.parametrize("kind", ["unknown", "llama"])
def test_a_models_own_code_never_runs(tmp_path: Path, random_model: Path, kind: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_model, folder)
    (folder / "own.py").write_text(OWN_CODE)
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    if kind == "unknown":  # one of a known type is loaded by transformers' own code
        config["model_type"] = "unheard_of"
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": own}))
    words = {"AutoTokenizer": ["own.Tokenizer", None]}
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "auto_map": words}))
    if kind == "unknown":
        with pytest.raises(InputError, match="asks to run Python code of its own"):
            resolve(recipe(str(folder)), folder)
    else:
        base = resolve(recipe(str(folder)), folder)
        load_tokenizer(base)
        load_model(base)
    assert not (folder / "ran").exists()


def test_weights_that_could_run_code_are_not_loaded(tmp_path: Path, random_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_model, folder)
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.ckpt", "training_args.bin"):
        (folder / name).write_bytes(b"a pickle")
    with pytest.raises(OSError, match="safetensors"):
        load_model(resolve(recipe(str(folder)), folder))

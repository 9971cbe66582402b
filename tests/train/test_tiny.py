from pathlib import Path
from typing import Any

import pytest

from train import tiny
from train.errors import InputError


def test_the_tokenizer_is_the_same_each_time(tokenizer: Any) -> None:
    again = tiny.make_tokenizer()
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_harmony_tokens_are_single_tokens_and_any_text_survives(tokenizer: Any) -> None:
    for token in tiny.SPECIAL_TOKENS:
        assert len(tokenizer.encode(token)) == 1
    text = "絵文字🙂と English, 漢字鬱 and 1,234.5"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sizes_are_those_that_serving_engines_accept(tokenizer: Any) -> None:
    config = tiny.config(tokenizer)
    assert config.head_dim == 64
    assert config.vocab_size % 64 == 0
    assert len(tokenizer) <= config.vocab_size
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}


def test_a_missing_sample_is_named_with_the_command_that_brings_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "DATA", tmp_path)
    with pytest.raises(InputError, match=r"git checkout -- data/general_japanese\.txt"):
        tiny.ensure(tmp_path)


@pytest.mark.slow
def test_the_base_model_is_deterministic_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "WARMUP_STEPS", 20)
    weights = [
        (tiny.ensure(tmp_path / name) / "model.safetensors").read_bytes() for name in ("a", "b")
    ]
    assert weights[0] == weights[1]
    (folder,) = (tmp_path / "a").iterdir()
    before = (folder / "config.json").stat().st_mtime_ns
    assert tiny.ensure(tmp_path / "a") == folder
    assert (folder / "config.json").stat().st_mtime_ns == before

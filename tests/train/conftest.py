"""A random gpt-oss and its tokenizer: the embedded model's own sizes, without its warm-up."""

from pathlib import Path
from typing import Any

import pytest

from train import tiny
from train.model import Base


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny.make_tokenizer()


@pytest.fixture(scope="session")
def random_model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model with the embedded model's config and random weights."""
    import torch
    from transformers import GptOssForCausalLM

    folder = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    GptOssForCausalLM(tiny.config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def base(random_model: Path) -> Base:
    return Base(
        path=str(random_model),
        revision=None,
        model_type="gpt_oss",
        device="cpu",
        dtype="float32",
        publish="float32",
        autocast=False,
        attention="eager",
        dequantise=False,
    )

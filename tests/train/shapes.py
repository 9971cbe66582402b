"""Random models of the architectures that the recipes name, a few million parameters each."""

from pathlib import Path
from typing import Any

from tests.train import tokenizer_kinds


def make(kind: str, folder: Path) -> Path:
    """A folder with a random `gpt_oss`, `mistral` or `phi3`, and a tokenizer of its kind."""
    import torch

    torch.manual_seed(0)
    model, tokenizer = _gpt_oss() if kind == "gpt_oss" else _dense(kind)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _gpt_oss() -> tuple[Any, Any]:
    from transformers import GptOssForCausalLM

    from train import tiny

    tokenizer = tiny.make_tokenizer()
    return GptOssForCausalLM(tiny.config(tokenizer)), tokenizer


def _dense(kind: str) -> tuple[Any, Any]:
    from transformers import (
        MistralConfig,
        MistralForCausalLM,
        Phi3Config,
        Phi3ForCausalLM,
    )

    tokenizer = tokenizer_kinds.KINDS[{"mistral": "mistral v0.3", "phi3": "phi3"}[kind]][1]()
    config, model = {
        "mistral": (MistralConfig, MistralForCausalLM),
        "phi3": (Phi3Config, Phi3ForCausalLM),
    }[kind]
    sizes = config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return model(sizes), tokenizer

"""A random model of gpt-oss shape, made once per session; loads in a second, answers nonsense."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train.chat_template import harmony
from train.tiny import SPECIAL_TOKENS

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "日本の首都は東京です。",
    "reasoning language",
]
CONTEXT = 4096
ROOT = Path(__file__).resolve().parents[2]


def save_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer with Harmony's tokens and template; returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=alphabet,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|return|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
    )
    fast.chat_template = harmony()
    fast.save_pretrained(folder)
    return len(fast)


def save_model(folder: Path, vocabulary: int) -> None:
    import torch
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=64,
        head_dim=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=32,
        vocab_size=vocabulary,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,  # spreads the logits, so that greedy decoding has no near ties
        eos_token_id=[2, 8],
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = GptOssForCausalLM(config).eval()
    with torch.no_grad():  # markers are never the likeliest, so a greedy answer has its full length
        model.lm_head.weight[: len(SPECIAL_TOKENS)] = 0
    model.generation_config.eos_token_id = [2, 8]
    model.generation_config.pad_token_id = 1
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder, mounted as Azure does: AZUREML_MODEL_DIR is two levels up."""
    folder = tmp_path_factory.mktemp("mounts") / "azureml-models" / "tiny" / "1" / "merged"
    folder.mkdir(parents=True)
    save_model(folder, save_tokenizer(folder))
    (folder / "homeport.json").write_text(
        json.dumps(
            {
                "name": "tiny-ja",
                "run_id": "run-1",
                "reasoning_language": "Japanese",
                "persona": "",
                "chat_template_kwargs": {"current_date": "2026-01-01"},
            }
        )
    )
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> Any:
    from serve.prompt import load_tokenizer

    return load_tokenizer(tiny)


@pytest.fixture(scope="session")
def server_env(tiny: Path) -> Callable[..., dict[str, str]]:
    """The environment of a server process, with nothing of the caller's settings."""

    def make(**more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SERVE_", "AZUREML_"))}
        own = {"AZUREML_MODEL_DIR": str(tiny.parent), "SERVE_ENGINE": "transformers"}
        return {**kept, **own, **more}

    return make

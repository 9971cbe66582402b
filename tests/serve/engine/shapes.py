"""Tiny random models of the architectures that we serve, saved as folders with a tokenizer.

    folder = save(tmp_path / "mistral", "mistral")

They load in a second and answer nonsense, with logits wide enough apart that greedy decoding has no
near ties. Every kind but Llama has a sliding window of WINDOW tokens. Markers of the tokenizer are
never the likeliest, so a greedy answer has its full length.
"""

from pathlib import Path
from typing import Any

from tests.serve.conftest import CONTEXT, save_model, save_tokenizer
from train.tiny import SPECIAL_TOKENS

WINDOW = 32
KINDS = ("gpt_oss", "phi3", "mistral", "llama")


def save(folder: Path, kind: str) -> Path:
    """Make the model and its tokenizer in this folder; gives the folder back."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = save_tokenizer(folder)
    if kind == "gpt_oss":
        save_model(folder, vocabulary)
    else:
        _save(folder, _config(kind, vocabulary))
    return folder


def save_hybrid(folder: Path) -> Path:
    """Linear attention in turn with full attention, which continuous batching refuses."""
    from transformers import Qwen3NextConfig

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = save_tokenizer(folder)
    config = Qwen3NextConfig(
        **_common(vocabulary),
        layer_types=["linear_attention", "full_attention"],
        head_dim=16,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    )
    _save(folder, config)
    return folder


def _common(vocabulary: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.5,
        "bos_token_id": 0,
        "eos_token_id": [2, 8],
        "pad_token_id": 1,
    }


def _config(kind: str, vocabulary: int) -> Any:
    from transformers import LlamaConfig, MistralConfig, Phi3Config

    common = _common(vocabulary)
    if kind == "phi3":
        return Phi3Config(**common, sliding_window=WINDOW)
    if kind == "mistral":
        return MistralConfig(**common, sliding_window=WINDOW)
    return LlamaConfig(**common)


def _save(folder: Path, config: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.lm_head.weight[: len(SPECIAL_TOKENS)] = 0
    model.generation_config.eos_token_id = config.eos_token_id
    model.save_pretrained(folder)


def reference(folder: Path) -> Any:
    """What every engine is held to."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def greedy(model: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    """Its own new tokens."""
    import torch

    ids = torch.tensor([prompt])
    out = model.generate(ids, max_new_tokens=count, do_sample=False, **options)
    return [int(token) for token in out[0, len(prompt) :]]

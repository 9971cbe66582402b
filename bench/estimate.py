"""The memory estimate against measured peaks: one real training per case, each in its own process.

python -m bench.estimate

Random models of 20 to 130 million parameters in the shapes of Mistral, Phi-3 and gpt-oss are
trained for two steps by the kit's own trainer on this machine's CPU; the peak of the process above
its loaded libraries is held against the estimate of the same recipe.
"""

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.table import Result, child, finish

LENGTH = 1024
ABOVE, BELOW = 0.20, 0.05
"""An estimate may be this share above what is measured, or below it."""
EXPERTS = '["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]'
OFF, ON = "training.gradient_checkpointing=false", "training.gradient_checkpointing=true"
CASES: dict[str, tuple[str, list[str]]] = {
    "Mistral, LoRA": ("mistral", [OFF]),
    "Mistral, LoRA, recomputed": ("mistral", [ON]),
    "Mistral, full": ("mistral", [OFF, "tuning=full"]),
    "Phi-3, LoRA": ("phi3", [OFF]),
    "Phi-3, full, recomputed": ("phi3", [ON, "tuning=full"]),
    "gpt-oss, LoRA": ("gpt_oss", [OFF]),
    "gpt-oss, LoRA, recomputed": ("gpt_oss", [ON]),
    "gpt-oss, experts": ("gpt_oss", [OFF, f"lora.target_parameters={EXPERTS}"]),
    "gpt-oss, experts, recomputed": ("gpt_oss", [ON, f"lora.target_parameters={EXPERTS}"]),
}


def measure() -> list[Result]:
    """Measured peak and estimate of every case, in MiB, and how far apart they are."""
    results = []
    for name in CASES:
        figures, _ = child("bench.estimate", ["case", name])
        peak, guess = figures["peak"] / 2**20, figures["estimate"] / 2**20
        off = guess / peak - 1
        results += [
            Result(name=f"{name}: measured", value=round(peak), unit="MiB"),
            Result(
                name=f"{name}: estimated {off:+.0%}",
                value=round(guess),
                unit="MiB",
                target=f"-{BELOW:.0%} to +{ABOVE:.0%}",
                met=-BELOW <= off <= ABOVE,
            ),
        ]
    return results


def case(name: str) -> dict[str, int]:
    """Train one case here: {"peak": bytes above the libraries, "estimate": bytes}."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTTrainer

    from train import adapter, sft, tiny
    from train.attention import choose
    from train.estimate import estimate
    from train.model import Base
    from train.packing import keep_packed_rows_apart

    kind, overrides = CASES[name]
    settings, chosen = config(kind), recipe(overrides)
    guess = estimate(chosen, settings, device="cpu").total
    full = chosen.tuning == "full"
    stored = "float32" if full else "bfloat16"
    attention, _ = choose(settings.model_type, "cpu", "auto")
    base = Base(
        path="",
        revision=None,
        model_type=settings.model_type,
        device="cpu",
        dtype=stored,
        publish="bfloat16",
        autocast=True,
        attention=attention,
        dequantise=False,
    )
    tokenizer = tiny.make_tokenizer()
    _warm()
    with tempfile.TemporaryDirectory() as folder:
        before = _forget_peak()
        model = AutoModelForCausalLM.from_config(
            settings, dtype=getattr(torch, stored), attn_implementation=attention
        )
        if kind == "gpt_oss":
            keep_packed_rows_apart(model)
        ids = torch.randint(9, 4000, (16, LENGTH // 2)).tolist()
        trainer = SFTTrainer(
            model,
            sft.arguments(chosen, base, Path(folder), parameters=guess),
            train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
            processing_class=tokenizer,
            peft_config=adapter.config(model, chosen),
        )
        trainer.train()
        return {"peak": _status("VmHWM") - before, "estimate": guess}


def recipe(overrides: list[str]) -> Any:
    """A recipe of two steps of two packs each."""
    from train import recipe as recipes

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.yaml")
        path.write_text("name: case\nmodel: {base: random, dtype: bfloat16}\ndata: {train: none}\n")
        training = ["max_steps=2", "packs_per_step=2", f"max_length={LENGTH}"]
        lines = [f"training.{line}" for line in training]
        return recipes.load(path, [*lines, *overrides], environ={})


def config(kind: str) -> Any:
    """The architecture's own shape in small: wide enough that tensors outweigh the process."""
    from transformers import GptOssConfig, MistralConfig, Phi3Config

    sizes: dict[str, Any] = {
        "vocab_size": 16384,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "pad_token_id": 0,
        "max_position_embeddings": 4096,
    }
    if kind == "mistral":
        return MistralConfig(**sizes)
    if kind == "phi3":
        return Phi3Config(**sizes, bos_token_id=1, eos_token_id=2)
    experts = {"hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 6}
    return GptOssConfig(
        **{**sizes, **experts},
        head_dim=64,
        num_local_experts=16,
        num_experts_per_tok=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )


def _warm() -> None:
    """Let the libraries load what they load at the first use, so that it counts as theirs."""
    import torch

    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.randn(64, 64, dtype=dtype, requires_grad=True)
        torch.autograd.grad((weight @ weight).sum(), weight)


def _forget_peak() -> int:
    """Resident bytes now, from which on the kernel counts the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        import json

        logging.disable(logging.INFO)
        print(json.dumps(case(sys.argv[2])))
    else:
        finish("estimate", measure())

"""The memory estimate against measured peaks: one real training per case, each in its own process.

python -m bench.estimate

Random models of 60 to 80 million parameters in the shapes of Mistral, Phi-3 and gpt-oss are
trained by the kit's own trainer on this machine's CPU; the peak of the process above its loaded
libraries is held against the estimate of the same recipe. The measured processes run with
ENVIRONMENT, so that what is measured are tensors, not how glibc and oneDNN hoard memory on a CPU;
`gpt-oss, experts, recomputed, plain process` is the same case without it.
"""

import gc
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
FULL = ["tuning=full", "training.max_steps=2"]
"""The second step has AdamW's moments from the start."""
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "1048576",  # glibc: give freed tensors back rather than keep them
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",  # it would keep a kernel for every size
}
CASES: dict[str, tuple[str, list[str]]] = {
    "Mistral, LoRA": ("mistral", [OFF]),
    "Mistral, LoRA, recomputed": ("mistral", [ON]),
    "Mistral, full": ("mistral", [OFF, *FULL]),
    "Phi-3, LoRA": ("phi3", [OFF]),
    "gpt-oss, LoRA, recomputed": ("gpt_oss", [ON]),
    "gpt-oss, experts": ("gpt_oss", [OFF, f"lora.target_parameters={EXPERTS}"]),
    "gpt-oss, experts, recomputed": ("gpt_oss", [ON, f"lora.target_parameters={EXPERTS}"]),
}


def measure() -> list[Result]:
    """Measured peak and estimate of every case, in MiB, and how far apart they are."""
    results = []
    for name in CASES:
        figures, _ = child("bench.estimate", ["case", name], ENVIRONMENT)
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
    figures, _ = child("bench.estimate", ["case", name])
    plain = round(figures["peak"] / 2**20)
    return [*results, Result(name=f"{name}, plain process: measured", value=plain, unit="MiB")]


def case(name: str) -> dict[str, int]:
    """Train one case here: {"peak": bytes above the libraries, "estimate": bytes}."""
    from train.estimate import estimate

    kind, overrides = CASES[name]
    chosen = recipe(overrides)
    guess = estimate(chosen, config(kind), device="cpu").total
    fit(config(kind, tiny=True), chosen)  # loads what the libraries load at the first use
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel counts the peak anew
    before = _status("VmRSS")
    fit(config(kind), chosen)
    return {"peak": _status("VmHWM") - before, "estimate": guess}


def fit(settings: Any, chosen: Any) -> None:
    """Train a random model as the kit does."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    from train import adapter, sft
    from train import tiny as own
    from train.attention import choose
    from train.model import Base
    from train.packing import keep_packed_rows_apart

    stored = "float32" if chosen.tuning == "full" else "bfloat16"
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
    with tempfile.TemporaryDirectory() as folder:
        model = AutoModelForCausalLM.from_config(
            settings, dtype=getattr(torch, stored), attn_implementation=attention
        )
        if settings.model_type == "gpt_oss":
            keep_packed_rows_apart(model)
        ids = torch.randint(9, 500, (4, LENGTH)).tolist()  # one row a pack: the dearest
        learner = sft.trainer_class()(
            model,
            sft.arguments(chosen, base, Path(folder), parameters=0),
            train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
            processing_class=own.make_tokenizer(),
            peft_config=adapter.config(model, chosen),
        )
        sft.pack_well(learner, model, chosen, base)
        learner.train()


def recipe(overrides: list[str]) -> Any:
    """A recipe of one step of two packs, unless `overrides` say otherwise."""
    from train import recipe as recipes

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.yaml")
        path.write_text("name: case\nmodel: {base: random, dtype: bfloat16}\ndata: {train: none}\n")
        training = ["max_steps=1", "packs_per_step=2", f"max_length={LENGTH}"]
        lines = [f"training.{line}" for line in training]
        return recipes.load(path, [*lines, *overrides], environ={})


def config(kind: str, *, tiny: bool = False) -> Any:
    """The architecture's own shape in small: wide enough that tensors outweigh the process."""
    from transformers import GptOssConfig, MistralConfig, Phi3Config

    sizes: dict[str, Any] = {
        "vocab_size": 512 if tiny else 16384,
        "hidden_size": 96 if tiny else 768,
        "intermediate_size": 64 if tiny else 2048,
        "num_hidden_layers": 1 if tiny else 8,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "pad_token_id": 0,
        "max_position_embeddings": 4096,
    }
    if kind == "mistral":
        return MistralConfig(**sizes)
    if kind == "phi3":
        return Phi3Config(**sizes, bos_token_id=1, eos_token_id=2)
    if not tiny:
        sizes |= {"intermediate_size": 1024, "num_hidden_layers": 4}
    return GptOssConfig(
        **sizes,
        head_dim=64,
        # each token to each expert: oneDNN compiles a kernel for every new size of a group
        num_local_experts=4,
        num_experts_per_tok=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )


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

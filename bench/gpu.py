"""A training of gpt-oss-20b's full size on this machine's GPU, with random weights and rows.

python -m bench.gpu [--small]

LoRA on attention and experts, packs of 2,048 tokens, the recipe's own defaults: tokens/s, the peak
of memory beside the estimate, and what the kernel probe said. Random weights cost what trained ones
do. Needs a GPU with 80 GB; `--small` is a dry run of the same path on any machine.
"""

import argparse
import logging
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.table import Result, finish

STEPS = 6
PACKS = 8
DOCUMENTS = 400
GIB = 2**30


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a dry run, a few million parameters")
    small = parser.parse_args().small
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    import torch

    if not torch.cuda.is_available() and not small:
        print("bench-gpu: left out, this machine has no NVIDIA GPU")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        finish("gpu", measure(Path(folder), small))
    return 0


def measure(folder: Path, small: bool) -> list[Result]:
    """Train a few steps; speed, memory and the kernels that were tried."""
    import torch
    from transformers import GptOssForCausalLM

    from train import sft, tiny
    from train.attention import choose
    from train.estimate import estimate
    from train.gpus import here
    from train.interruption import Stop
    from train.model import Base
    from train.packing import keep_packed_rows_apart
    from train.recipe import load

    tokenizer = tiny.make_tokenizer()
    settings = tiny.config(tokenizer) if small else full_size()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = folder / "recipe.yaml"
    path.write_text(
        "name: gpu\nmodel: {base: random, dtype: bfloat16}\ndata: {train: random}\n"
        "lora: {target_parameters: [mlp.experts.gate_up_proj, mlp.experts.down_proj]}\n"
        f"training: {{max_steps: {STEPS}, packs_per_step: {PACKS}, max_length: 2048,\n"
        "  logging_steps: 1, learning_rate: 1e-4}\n"
    )
    recipe = load(path, environ={})
    guess = estimate(recipe, settings, device=device)  # type: ignore[arg-type]
    attention, _ = choose("gpt_oss", device, "auto")
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = GptOssForCausalLM._from_config(settings, attn_implementation=attention)
        torch.set_default_dtype(torch.float32)
    keep_packed_rows_apart(model)
    base = Base(
        path="",
        revision=None,
        model_type="gpt_oss",
        device=device,
        dtype="bfloat16",
        publish="bfloat16",
        autocast=device == "cuda",
        attention=attention,
        dequantise=False,
    )
    measured = sft.train(model, tokenizer, rows(folder), None, recipe, base, folder, Stop(), [])
    gpu = here()
    kernels = measured["checks"].get("attention", {}).get("trials", [])
    return [
        Result(name="tokens per second", value=measured["tokens_per_second"], unit="tokens/s"),
        Result(
            name=f"peak memory, {gpu.name if gpu else 'process'}",
            value=round(measured["peak_memory_bytes"] / GIB, 2),
            unit="GiB",
        ),
        Result(name="peak memory, estimated", value=round(guess.total / GIB, 2), unit="GiB"),
        *(
            Result(
                name=f"attention {trial['name']}: {trial['outcome']}",
                value=round(1000 * (trial["seconds"] or 0), 1),
                unit="ms a pack",
            )
            for trial in kernels
        ),
    ]


def full_size() -> Any:
    """The released configuration of openai/gpt-oss-20b (config.json), without its MXFP4."""
    from transformers import GptOssConfig

    return GptOssConfig(
        vocab_size=201088,
        hidden_size=2880,
        intermediate_size=2880,
        head_dim=64,
        num_attention_heads=64,
        num_key_value_heads=8,
        num_hidden_layers=24,
        num_local_experts=32,
        num_experts_per_tok=4,
        sliding_window=128,
        router_aux_loss_coef=0.9,
    )


def rows(folder: Path) -> Path:
    """Documents of 16 to 1,024 random tokens, the second half of each learned."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = random.Random(0)
    lengths = [draw.randint(16, 1024) for _ in range(DOCUMENTS)]
    ids = [[draw.randint(300, 4000) for _ in range(length)] for length in lengths]
    labels = [[-100] * (len(row) // 2) + row[len(row) // 2 :] for row in ids]
    kind = pa.list_(pa.int32())
    path = folder / "rows.parquet"
    pq.write_table(
        pa.table({"input_ids": pa.array(ids, kind), "labels": pa.array(labels, kind)}), path
    )
    return path


if __name__ == "__main__":
    sys.exit(main())

"""Rows of messages → token ids and labels: train/data/tokens.py against TRL's own preparation.

Same rows, same tokenizer and template, one process, one after the other; TRL prepares as its
SFTTrainer does for prompt and completion, without packing or cutting, and needs not write a file.
"""

import random
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from bench.table import Result

KWARGS = {"current_date": "2026-01-01"}
TARGET = 2.0
UNCUT = 1 << 20
"""Longer than any row."""


def measure(rows: int = 8000) -> list[Result]:
    """Rows and tokens per second of both, and in how many rows they differ."""
    import pyarrow.parquet as pq

    from train import tiny
    from train.data.tokens import tokenise

    tokenizer = tiny.make_tokenizer()
    conversations = synthetic(rows)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "rows.parquet"), Path(folder, "tokens.parquet")
        _write(conversations, source)
        started = time.perf_counter()
        report = tokenise(source, out, tokenizer, KWARGS, UNCUT)
        ours = time.perf_counter() - started
        written = pq.read_table(out, columns=["input_ids", "labels"]).to_pylist()
    theirs, prepared = _trl(conversations, tokenizer)
    different = sum(a != b for a, b in zip(written, prepared, strict=True))
    ratio = theirs / ours
    return [
        Result(name="TRL's preparation", value=rows / theirs, unit="rows/s"),
        Result(
            name=f"tokenised by {report.path}",
            value=rows / ours,
            unit="rows/s",
            baseline="TRL's preparation",
            ratio=ratio,
            target=f">= {TARGET:g}x",
            met=ratio >= TARGET,
        ),
        Result(name="tokens", value=report.tokens / ours, unit="tokens/s"),
        Result(
            name="rows that differ from TRL's",
            value=different,
            unit="rows",
            target="0",
            met=different == 0,
        ),
    ]


def synthetic(rows: int) -> list[list[dict[str, str]]]:
    """Questions with reasoning and an answer, about 300 tokens a row, a third of two turns.

    No text but the system message comes twice, since equal ones are encoded once.
    """
    from train import tiny

    draw = random.Random(0)
    texts = [text for name in tiny.TOKENIZER_TEXTS for text in tiny._texts(name) if len(text) > 20]
    numbers = count()

    def text(parts: int) -> str:
        return " ".join([*draw.choices(texts, k=parts), str(next(numbers))])

    def conversation() -> list[dict[str, str]]:
        messages = [{"role": "system", "content": "reasoning language: Japanese"}]
        for _ in range(draw.choice((1, 1, 2))):
            messages += [
                {"role": "user", "content": text(1)},
                {"role": "assistant", "content": text(2)},
            ]
        messages[-1]["thinking"] = text(3)
        return messages

    return [conversation() for _ in range(rows)]


def _write(conversations: list[list[dict[str, str]]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [(name, pa.string()) for name in ("role", "content", "thinking")]
    column = pa.array(conversations, pa.list_(pa.struct(fields)))
    pq.write_table(pa.table({"messages": column}), path)


def _trl(
    conversations: list[list[dict[str, str]]], tokenizer: Any
) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of SFTTrainer's preparation, and the rows that it makes."""
    import datasets
    from transformers import GptOssConfig, GptOssForCausalLM
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_list(
        [
            {"prompt": row[:-1], "completion": row[-1:], "chat_template_kwargs": KWARGS}
            for row in conversations
        ]
    )
    # the trainer wants a model; one this small takes no time
    model = GptOssForCausalLM(
        GptOssConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=8,
            num_local_experts=1,
            num_experts_per_tok=1,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            report_to=[],
            use_cpu=True,
            bf16=False,
            max_length=None,
            packing=False,
            assistant_only_loss=True,
        )
        started = time.perf_counter()
        trainer = SFTTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
        seconds = time.perf_counter() - started
    return seconds, trainer.train_dataset.select_columns(["input_ids", "labels"]).to_list()


if __name__ == "__main__":
    from bench.table import finish

    finish("data-tokens", measure())

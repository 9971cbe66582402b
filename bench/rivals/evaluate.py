"""The evaluation loss of any side's adapter, by one function: float32, eager, row by row."""

from pathlib import Path
from typing import Any

from bench.rivals.task import Task, answer, read


def main() -> None:
    task, folder = read()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        task.base, dtype=torch.float32, attn_implementation="eager"
    )
    # without an adapter: the base itself
    if folder.is_dir():
        model = PeftModel.from_pretrained(model, str(_adapter(folder)))
    answer(loss=loss(model.eval(), task))


def _adapter(folder: Path) -> Path:
    """Where the side has left its adapter, at the top of its folder or one below."""
    return next(path.parent for path in sorted(folder.rglob("adapter_config.json")))


def loss(model: Any, task: Task) -> float:
    """Mean negative log-likelihood (nats) over the learned tokens of the held-out rows."""
    import pyarrow.parquet as pq
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for row in pq.read_table(task.held_out_rows).to_pylist():
            labels = torch.tensor(row["labels"][1:])
            learned = labels != -100
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(
                logits[learned], labels[learned], reduction="sum"
            ).item()
            count += int(learned.sum())
    return total / count


if __name__ == "__main__":
    main()

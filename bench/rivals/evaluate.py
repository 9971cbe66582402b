"""The evaluation loss of every side's adapter, by one function: float32, eager, row by row."""

import json
import sys
from typing import Any

from bench.rivals.task import Task, answer, read


def main() -> None:
    task, _ = read()
    folders: dict[str, str] = json.loads(sys.argv[3])
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def base() -> Any:
        return AutoModelForCausalLM.from_pretrained(
            task.base, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    adapted = {
        name: loss(PeftModel.from_pretrained(base(), folder).eval(), task)
        for name, folder in folders.items()
    }
    answer(before=loss(base(), task), after=adapted)


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

"""What a fine-tuning job tells of itself: events, checkpoints, and results.csv.

Rows that are held out are measured whole, at the end of each epoch.
"""

import csv
import io
import uuid
from collections.abc import Sequence
from typing import Any

from emulator.openai.plane import clock
from emulator.tuning import Step

COLUMNS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "validation_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)
"""Of results.csv, as Azure's fine-tuning guide lists them."""


def event(
    message: str, *, level: str = "info", data: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One event; `data` makes it one of metrics."""
    return {
        "object": "fine_tuning.job.event",
        "id": f"ftevent-{uuid.uuid4().hex}",
        "created_at": clock(),
        "level": level,
        "message": message,
        "type": "metrics" if data else "message",
        **({"data": data} if data else {}),
    }


def step_event(step: Step) -> dict[str, Any]:
    """What was measured at a step."""
    data: dict[str, Any] = {
        "step": step.step,
        "train_loss": step.train_loss,
        "train_mean_token_accuracy": step.train_accuracy,
        **_validation(step),
    }
    return event(f"Step {step.step}: training loss={step.train_loss}", data=data)


def checkpoint(job: str, model: str, step: Step, *, last: bool) -> dict[str, Any]:
    """The model after a step; the last one of a job is its model itself."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftchkpt-{uuid.uuid4().hex}",
        "created_at": clock(),
        "fine_tuned_model_checkpoint": model if last else f"{model}:ckpt-step-{step.step}",
        "fine_tuning_job_id": job,
        "metrics": {
            "step": float(step.step),
            "train_loss": step.train_loss,
            "train_mean_token_accuracy": step.train_accuracy,
            **_validation(step),
        },
        "step_number": step.step,
    }


def table(steps: Sequence[Step]) -> bytes:
    """results.csv: a row for each step."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for step in steps:
        loss, accuracy = (
            "" if measured is None else measured
            for measured in (step.valid_loss, step.valid_accuracy)
        )
        train = (step.step, step.train_loss, step.train_accuracy)
        lines.writerow([*train, loss, accuracy, loss, accuracy])
    return text.getvalue().encode()


def _validation(step: Step) -> dict[str, float]:
    found = {"loss": step.valid_loss, "mean_token_accuracy": step.valid_accuracy}
    return {
        f"{whole}valid_{name}": measured
        for whole in ("", "full_")
        for name, measured in found.items()
        if measured is not None
    }

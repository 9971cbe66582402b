"""What a fine-tuning job tells of itself: events, checkpoints, and results.csv.

Accuracies are empty: what trains here measures losses.
"""

import csv
import io
import uuid
from typing import Any

from emulator.openai.plane import clock
from emulator.tuning import Checkpoint, Step

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


def step_events(losses: tuple[Step, ...]) -> list[dict[str, Any]]:
    """One for each measured step."""
    return [
        event(
            f"Step {step.step}: training loss={step.train_loss}",
            data={
                "step": step.step,
                "train_loss": step.train_loss,
                **({"valid_loss": step.valid_loss} if step.valid_loss is not None else {}),
            },
        )
        for step in losses
    ]


def checkpoint(
    job: str, model: str, number: int, reached: Checkpoint, *, last: bool
) -> dict[str, Any]:
    """One checkpoint; the last one of a job is the model itself."""
    metrics: dict[str, float] = {"step": float(number), "train_loss": reached.train_loss}
    if reached.valid_loss is not None:
        metrics |= {"valid_loss": reached.valid_loss, "full_valid_loss": reached.valid_loss}
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftchkpt-{uuid.uuid4().hex}",
        "created_at": clock(),
        "fine_tuned_model_checkpoint": model if last else f"{model}:ckpt-step-{number}",
        "fine_tuning_job_id": job,
        "metrics": metrics,
        "step_number": number,
    }


def table(losses: tuple[Step, ...], checkpoints: tuple[Checkpoint, ...]) -> bytes:
    """results.csv: a row for each measured step, with the whole validation's loss at checkpoints."""
    full = {reached.step: reached.valid_loss for reached in checkpoints}
    measured = {step.step: step for step in losses}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for number in sorted(measured.keys() | full.keys()):
        step = measured.get(number)
        train = step.train_loss if step else ""
        valid = step.valid_loss if step and step.valid_loss is not None else ""
        whole = full.get(number)
        lines.writerow([number, train, "", valid, "", "" if whole is None else whole, ""])
    return text.getvalue().encode()

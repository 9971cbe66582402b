"""What both methods share: arguments that no recipe may get wrong, progress, checkpoints, resume.

    result = fit(trainer, "packs", recipe, run, stop)

The settings that no recipe can change are there because another value trains something else
without a warning.
"""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from train import distributed
from train.errors import Interrupted, MachineError
from train.interruption import AGAIN, Stop
from train.recipe import Recipe
from train.runs import write_json

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
CACHE = "cache"
"""Folder beside the rows, with the process's rank, for what the libraries keep as they train."""
LARGE = 1_000_000_000
"""Parameters from which activations are recomputed rather than kept, unless the recipe says."""
NO_SPACE = ("no space left", "os error 28", "file write failed", "enforce fail at inline_container")
"""How the libraries that write weights say that a disk is full."""


def arguments(recipe: Recipe, device: str, run: Path, *, parameters: int) -> dict[str, Any]:
    """Keyword arguments that SFTConfig and DPOConfig have in common."""
    training = recipe.training
    cosine = training.scheduler == "cosine"
    recompute = training.gradient_checkpointing
    if recompute == "auto":
        recompute = parameters >= LARGE
        log.info(
            "gradient checkpointing: %s (%.3g billion parameters)",
            "on" if recompute else "off",
            parameters / 1e9,
        )
    sharded = training.distributed == "fsdp2" and distributed.processes() > 1
    return {
        "output_dir": str(run / CHECKPOINTS),
        # train/checkpoints.py decides when, and removes old ones only when the new one is complete
        "save_strategy": "no",
        "eval_strategy": "steps" if recipe.evaluation.steps else "no",
        "eval_steps": recipe.evaluation.steps or None,
        "per_device_eval_batch_size": 1,
        "report_to": [],  # train/tracking.py does
        "disable_tqdm": True,
        "logging_steps": training.logging_steps,
        "logging_first_step": True,
        # else a loss that is no number would be logged as the mean of those before
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "all",
        "seed": training.seed,
        "use_cpu": device == "cpu",
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps,
        "learning_rate": training.learning_rate,
        "warmup_steps": training.warmup,
        "weight_decay": training.weight_decay,
        "adam_beta2": training.adam_beta2,
        "max_grad_norm": training.max_grad_norm,
        "lr_scheduler_type": "cosine_with_min_lr" if cosine else training.scheduler,
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1} if cosine else None,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": training.packs_per_step,
        # FSDP recomputes by itself
        "activation_checkpointing": bool(recompute) and not sharded,
        # reentrant checkpointing breaks distributed training of adapters
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "ddp_find_unused_parameters": False,
        "ddp_timeout": int(distributed.PATIENCE.total_seconds()),
        "fsdp": sharded or None,
        "fsdp_config": {"version": 2, "activation_checkpointing": bool(recompute)}
        if sharded
        else None,
        # released gpt-oss configs carry 0.9, which would train the adapter to balance routing
        "router_aux_loss_coef": 0.0,
    }


def traced(base: type[Any]) -> type[Any]:
    """The trainer class `base`, with speed and memory in every log line and tracker."""

    class Traced(base):  # type: ignore[misc]
        started = 0.0
        tokens_before = 0

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                tokens = self.state.num_input_tokens_seen - self.tokens_before
                passed = time.monotonic() - self.started
                logs["tokens_per_second"] = round(tokens / passed, 1) if passed else 0.0
                logs["memory_bytes"] = peak_memory()
                say(logs, self.state, passed, self._initial_global_step)
            super().log(logs, start_time)

        def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
            result = super()._init_training_state(*args, **kwargs)
            self.started = time.monotonic()
            self.tokens_before = self.state.num_input_tokens_seen
            return result

    return Traced


def say(logs: dict[str, float], state: Any, passed: float, first_step: int) -> None:
    """One progress line, the same on a terminal and in a log file."""
    done = state.global_step - first_step
    left = passed / done * (state.max_steps - state.global_step) if done else 0.0
    log.info(
        "step %d/%d  loss %.4f  learning rate %.2e  %s tokens/s  %.1f GB  %s left",
        state.global_step,
        state.max_steps,
        logs["loss"],
        logs["learning_rate"],
        f"{logs['tokens_per_second']:,.0f}",
        logs["memory_bytes"] / 1e9,
        duration(left),
    )


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def peak_memory() -> int:
    """Bytes: the peak of this process so far, on its GPU or, without one, in RAM."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def dataset(rows: Path) -> Any:
    """A Parquet as the libraries take it, with their copy in a cache that goes with the run."""
    from datasets import load_dataset

    cache = str(rows.parent / f"{CACHE}-{distributed.rank()}")
    return load_dataset("parquet", data_files=str(rows), split="train", cache_dir=cache)


def fit(trainer: Any, what: str, recipe: Recipe, run: Path, stop: Stop) -> dict[str, Any]:
    """Train on the `what` of the trainer, from the newest complete checkpoint; what was measured.

    Writes `run/history.json`. Raises Interrupted after a checkpoint when asked to stop, and
    MachineError when the disk is full; both leave the newest complete checkpoint as it was.
    """
    from transformers import PrinterCallback

    from train import checkpoints

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(checkpoints.Checkpoints(trainer, recipe, stop))
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    count = len(trainer.train_dataset)
    log.info("training: %s trainable parameters, %s %s", f"{trainable:,}", count, what)
    folder = run / CHECKPOINTS
    start = checkpoints.newest(folder)
    if start:
        log.info("training: goes on from %s", start.name)
    began = time.monotonic()
    try:
        with stop.noted():
            result = trainer.train(resume_from_checkpoint=str(start) if start else None)
    except Exception as error:
        if not any(sign in str(error).lower() for sign in NO_SPACE):
            raise
        checkpoints.remove_incomplete(folder)
        last = checkpoints.newest(folder)
        raise MachineError(
            f"the disk of {folder} is full; "
            + (f"{last.name} is intact. " if last else "no checkpoint had been written. ")
            + f"Free some space and run the same command: {AGAIN}."
        ) from None
    state = trainer.state
    if stop.requested:
        raise Interrupted(
            f"{stop.requested}: stopped after step {state.global_step} of {state.max_steps}"
            + (f"; {AGAIN}." if state.global_step else ", before anything was learned.")
        )
    if distributed.is_main():
        write_json(run / "history.json", state.log_history)
    losses = [float(entry["loss"]) for entry in state.log_history if "loss" in entry]
    best = checkpoints.best_step(state.log_history) if recipe.evaluation.keep_best else None
    return {
        "steps": result.global_step,
        "kept_step": best or result.global_step,
        "trainable_parameters": trainable,
        "seconds": round(time.monotonic() - began, 1),
        "tokens": int(state.num_input_tokens_seen),
        "tokens_per_second": _last(state.log_history, "tokens_per_second"),
        "peak_memory_bytes": peak_memory(),
        "first_loss": round(losses[0], 6),
        "last_loss": round(losses[-1], 6),
    }


def _last(history: list[dict[str, Any]], key: str) -> Any:
    return next((entry[key] for entry in reversed(history) if key in entry), None)


def keep(run: Path, kept_step: int, full: bool) -> Path:
    """Copy the weights out of the chosen checkpoint, into `adapter/` or, of all, `weights/`."""
    final = run / ("weights" if full else "adapter")
    part = run / f"{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    source = run / CHECKPOINTS / f"checkpoint-{kept_step}"
    patterns = ("model*", "config.json", "generation_config.json") if full else ("adapter_*",)
    for pattern in patterns:
        for file in source.glob(pattern):
            shutil.copyfile(file, part / file.name)
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    return final

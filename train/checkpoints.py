"""Checkpoints are complete or passed over, and training goes on from them exactly.

    checkpoints/checkpoint-<step>/
        …                 what the Trainer writes: weights, optimiser, schedule, random state
        accumulated.json  the losses since the last log line, which the Trainer forgets on resume
        complete.json     names and sizes of all other files, written last

A checkpoint without complete.json, or whose files do not match it, was cut off in writing.
"""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from train import distributed
from train.errors import InputError
from train.interruption import Stop
from train.recipe import Recipe
from train.runs import read_json, write_json

log = logging.getLogger(__name__)

COMPLETE = "complete.json"
ACCUMULATED = "accumulated.json"
DEFAULT_SECONDS = 600.0
"""Between checkpoints, unless the recipe counts steps: what a lost machine costs at most."""


def newest(parent: Path) -> Path | None:
    """The complete checkpoint of the highest step below `parent`; says which are passed over."""
    for folder in sorted(parent.glob("checkpoint-*"), key=step, reverse=True):
        if complete(folder):
            return folder
        log.info("checkpoint: %s is incomplete, passed over", folder.name)
    return None


def step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def complete(folder: Path) -> bool:
    sizes = read_json(folder / COMPLETE)
    return sizes is not None and sizes == _sizes(folder)


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != COMPLETE
    }


class Checkpoints(TrainerCallback):  # type: ignore[misc]  # transformers ships no types for it
    """Decides when to write checkpoints, completes them, and removes the old ones.

    One is written every `training.checkpoint_steps` (or every ten minutes), at the lowest
    validation loss so far, when asked to stop, and at the last step, so that whatever follows the
    training can be done again without it.
    """

    def __init__(self, trainer: Any, recipe: Recipe, stop: Stop) -> None:
        self.trainer = trainer
        self.recipe = recipe
        self.stop = stop
        self.last_save = time.monotonic()
        self.before_step: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last_save = time.monotonic()
        held = read_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / ACCUMULATED)
        if held is not None:
            # else the first log line after a resume would be the mean over fewer steps
            self.trainer._tr_loss += held["loss"]
            self.trainer._globalstep_last_logged = held["last_logged"]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        import torch

        cuda = torch.cuda.is_available()
        self.before_step = {
            "loss": self.trainer._tr_loss.clone(),
            "tokens": state.num_input_tokens_seen,
            "random": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if cuda else None,
        }

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Between the micro-batches of a step: a step may last longer than we are given."""
        if not distributed.any_of(bool(self.stop.requested), args.device):
            return
        control.should_training_stop = True
        if state.global_step:
            self._forget_micro_batches(state)
            self.trainer._save_checkpoint(self.trainer.model, trial=None)
            self.on_save(args, state, control)

    def _forget_micro_batches(self, state: Any) -> None:
        """As if the step had not begun: no weight has changed yet, and it will be done again."""
        import torch

        self.trainer._tr_loss.copy_(self.before_step["loss"])
        state.num_input_tokens_seen = self.before_step["tokens"]
        torch.set_rng_state(self.before_step["random"])
        if self.before_step["cuda"] is not None:
            torch.cuda.set_rng_state(self.before_step["cuda"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = self.recipe.training.checkpoint_steps
        if every:
            due = state.global_step % every == 0
        else:  # clocks differ between processes, steps do not
            late = time.monotonic() - self.last_save >= DEFAULT_SECONDS
            due = distributed.any_of(late, args.device)
        if due or state.global_step >= state.max_steps:
            control.should_save = True
        if distributed.any_of(bool(self.stop.requested), args.device):
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        losses = validation_losses(state.log_history)
        best = best_step(state.log_history)
        if self.recipe.evaluation.keep_best and best == state.global_step:
            control.should_save = True
        patience = self.recipe.evaluation.patience
        since = len([s for s, _ in losses if best is not None and s > best])
        if patience and since >= patience and not control.should_training_stop:
            log.info(
                "stopping early: %d measurements without a lower validation loss than %.4f at step "
                "%d (evaluation.patience)",
                since,
                min(loss for _, loss in losses),
                best,
            )
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if loss != loss or abs(loss) == float("inf"):
            raise InputError(
                f"the loss is {loss} at step {state.global_step}: lower training.learning_rate "
                f"({self.recipe.training.learning_rate:g}) or raise training.warmup, and start "
                "anew with --fresh."
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last_save = time.monotonic()
        loss = distributed.mean(self.trainer._tr_loss)
        distributed.wait()  # every process writes its random state
        if not distributed.is_main():
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        held = {"loss": loss, "last_logged": self.trainer._globalstep_last_logged}
        write_json(folder / ACCUMULATED, held)
        write_json(folder / COMPLETE, _sizes(folder))
        self._remove_old(folder.parent, state)

    def _remove_old(self, parent: Path, state: Any) -> None:
        """Only when the newest is complete: a fault before would have cost the last good one."""
        best = best_step(state.log_history) if self.recipe.evaluation.keep_best else None
        folders = sorted(parent.glob("checkpoint-*"), key=step, reverse=True)
        for old in folders[self.recipe.training.keep_checkpoints :]:
            if step(old) != best:
                shutil.rmtree(old)


def validation_losses(history: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(step, validation loss) of each measurement, oldest first."""
    return [(e["step"], e["eval_loss"]) for e in history if "eval_loss" in e]


def best_step(history: list[dict[str, Any]]) -> int | None:
    """Step of the lowest validation loss, the first where there are several."""
    losses = validation_losses(history)
    return min(losses, key=lambda pair: (pair[1], pair[0]))[0] if losses else None


def remove_incomplete(parent: Path) -> None:
    """After a write that failed: give its space back; the complete ones stay."""
    for folder in parent.glob("checkpoint-*"):
        if not complete(folder):
            shutil.rmtree(folder, ignore_errors=True)

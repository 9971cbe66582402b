"""Runs fine-tuning jobs: one thread each, one training at a time for each resource.

    training.start(azure, account, job)      from `pending` to its end
    training.cancel(job)

The rows are validated first, then the tiny model is really tuned on them (tuning.py), whatever base
model the job names. The last three epochs stay as checkpoints that can be deployed.
"""

import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emulator import tuning
from emulator.azure import Azure
from emulator.openai import files, results, rows
from emulator.openai.accounts import Account, TunedModel
from emulator.tuning import Step, Tuned, TuningCanceled, TuningError, Wanted

if TYPE_CHECKING:
    from emulator.openai.jobs import Job

WAIT_SECONDS = 0.2
"""Between two looks whether it is a job's turn."""
CHARACTERS = 4
"""Of a token, about: no tokenizer of the named model is here."""
TOLD_STEPS = 10
"""Of so many steps one becomes an event; the ends of epochs do too."""
KEPT = 3
"""Checkpoints of a job that can be deployed."""


class Invalid(Exception):
    """The rows cannot be trained; `param` says which of the two files."""

    def __init__(self, sentence: str, param: str) -> None:
        super().__init__(sentence)
        self.param = param


def start(azure: Azure, account: Account, job: "Job") -> None:
    """Begin the job in the background."""
    job.events.append(results.event("Job enqueued. Waiting for jobs ahead to complete."))
    run = partial(_run, azure, account, job)
    job.thread = threading.Thread(target=run, name=job.id, daemon=True)
    job.thread.start()


def cancel(job: "Job") -> None:
    """Ask for its end. It counts as cancelled at once; its programs end soon after."""
    job.canceled.set()
    job.note("cancelled")


def _run(azure: Azure, account: Account, job: "Job") -> None:
    try:
        while not account.turn.acquire(timeout=WAIT_SECONDS):
            if job.canceled.is_set():
                return
        try:
            _train(azure, account, job)
        finally:
            account.turn.release()
    except TuningCanceled:
        job.note("cancelled")
    except Invalid as flaw:
        _fail(job, "invalidTrainingFile", str(flaw), flaw.param)
    except TuningError as problem:
        _fail(job, "trainingFailed", str(problem))
    except Exception:
        azure.journal.problem(f"fine-tuning job {job.id}: {traceback.format_exc()}")
        _fail(job, "internalError", "A bug of the rehearsal.")


def _train(azure: Azure, account: Account, job: "Job") -> None:
    tell = _teller(job)
    if not job.note("running"):
        return
    tell("Job started.")
    tell("Preprocessing started.")
    folder = account.folder / "jobs" / job.id
    training, characters = _prepare(account, job, "training_file", folder)
    tell("Preprocessing completed for file training file.")
    validation = None
    if job.given.get("validation_file"):
        validation, _ = _prepare(account, job, "validation_file", folder)
        tell("Preprocessing completed for file validation file.")
    tell("Training started.")
    with (folder / "log.txt").open("ab", buffering=0) as log:

        def keep(text: bytes) -> None:
            log.write(text)

        def measured(step: Step) -> None:
            if step.step % TOLD_STEPS == 0 or step.valid_loss is not None:
                job.events.append(results.step_event(step))

        tuned = tuning.tune(
            azure,
            Wanted(
                name=job.id,
                rows=training,
                validation=validation,
                epochs=job.epochs,
                seed=job.seed,
                checkpoints=True,
            ),
            canceled=job.canceled,
            log=keep,
            step=measured,
        )
    if job.canceled.is_set():
        raise TuningCanceled("The job was cancelled.")
    tell("Training completed.")
    tell("Postprocessing started.")
    job.trained_tokens = characters // CHARACTERS * job.epochs
    _keep(account, job, tuned)
    tell(f"Completed results file: {job.result_files[0]}")
    job.note("succeeded")


def _prepare(account: Account, job: "Job", param: str, folder: Path) -> tuple[Path, int]:
    """The rows of one of the two files as a training of ours reads them; Invalid where they are
    not what Azure trains."""
    kept = files.find(account, job.given[param])
    least = rows.LEAST if param == "training_file" else 1
    if flaws := rows.flaws(kept.path, least=least):
        raise Invalid(f"The file {kept.filename} is not valid. {' '.join(flaws)}", param)
    target = folder / f"{param}.jsonl"
    return target, rows.rewrite(kept.path, target)


def _keep(account: Account, job: "Job", tuned: Tuned) -> None:
    """Name the model and its checkpoints, and keep results.csv."""
    suffix = job.given.get("suffix")
    base = str(job.given["model"]).partition(".ft-")[0]
    name = f"{base}.ft-{job.id.removeprefix('ftjob-')}{f'-{suffix}' if suffix else ''}"
    account.models[name] = TunedModel(name, tuned.folder)
    reached = tuned.checkpoints[-KEPT:]
    steps = {step.step: step for step in tuned.losses}
    for one in reached:
        last = one is reached[-1]
        shown = results.checkpoint(job.id, name, steps[one.step], last=last)
        model = TunedModel(shown["fine_tuned_model_checkpoint"], one.folder)
        account.models[shown["id"]] = model
        account.models.setdefault(model.name, model)
        job.checkpoints.append(shown)
    result = files.add(account, "results.csv", "fine-tune-results", results.table(tuned.losses))
    result.status = "processed"
    job.result_files = [result.id]
    job.model = name


def _teller(job: "Job") -> Callable[[str], None]:
    return lambda message: job.events.append(results.event(message))


def _fail(job: "Job", code: str, sentence: str, param: str | None = None) -> None:
    if job.note("failed"):
        job.error = {"code": code, "message": sentence, "param": param}
        job.events.append(results.event(sentence, level="error"))

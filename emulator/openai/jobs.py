"""Fine-tuning jobs: made, listed, told of, cancelled. training.py runs them.

Events and checkpoints are asked by GET; a POST, as some of Azure's samples send it, is refused.
"""

import random
import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from emulator.azure import Azure
from emulator.http import Refusal, Reply, Request, Route
from emulator.openai import accounts, plane, results, training
from emulator.openai.accounts import MODELS, Account
from emulator.openai.plane import clock, page

ENDED = ("succeeded", "failed", "cancelled")
MOST_SUFFIX = 40
MOST_WAITING = 20
"""Jobs of a resource that wait for their turn."""
EPOCHS = 3
"""Where the caller leaves the number to Azure."""


@dataclass(slots=True, kw_only=True)
class Job:
    """One fine-tuning job."""

    id: str
    given: dict[str, Any]
    """What the caller asked for."""
    training_type: str
    seed: int
    status: str = "pending"
    created: int = field(default_factory=clock)
    finished: int | None = None
    error: dict[str, Any] | None = None
    model: str | None = None
    """The fine-tuned model's name."""
    trained_tokens: int | None = None
    result_files: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    """Oldest first."""
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    canceled: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    _status: threading.Lock = field(default_factory=threading.Lock)

    def note(self, status: str) -> bool:
        """Keep a status, unless it has ended: what was cancelled does not fail or succeed later."""
        with self._status:
            if self.status in ENDED:
                return False
            self.status = status
            if status in ENDED:
                self.finished = clock()
                self.events.append(results.event(f"Job {status}."))
            return True

    @property
    def hyperparameters(self) -> dict[str, Any]:
        method = (self.given.get("method") or {}).get("supervised") or {}
        return {
            **(self.given.get("hyperparameters") or {}),
            **(method.get("hyperparameters") or {}),
        }

    @property
    def epochs(self) -> int:
        """As the caller gave them, or EPOCHS."""
        number = self.hyperparameters.get("n_epochs")
        return number if isinstance(number, int) and number > 0 else EPOCHS

    def view(self) -> dict[str, Any]:
        """As Azure shows it: what there is not yet is null, of `auto` it says -1."""
        asked = self.hyperparameters
        shown = {
            name: -1 if asked.get(name) in (None, "auto") else asked[name]
            for name in ("n_epochs", "batch_size", "learning_rate_multiplier")
        }
        if self.status != "pending":
            shown["n_epochs"] = self.epochs
        return {
            "object": "fine_tuning.job",
            "id": self.id,
            "model": self.given["model"],
            "status": self.status,
            "created_at": self.created,
            "finished_at": self.finished,
            "estimated_finish": None,
            "fine_tuned_model": self.model,
            "training_file": self.given["training_file"],
            "validation_file": self.given.get("validation_file"),
            "hyperparameters": shown,
            "method": self.given.get("method"),
            "metadata": self.given.get("metadata"),
            "suffix": self.given.get("suffix"),
            "seed": self.seed,
            "trainingType": self.training_type,
            "trained_tokens": self.trained_tokens,
            "result_files": self.result_files or None,
            "organization_id": None,
            "error": self.error,
        }


def create(azure: Azure, account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST fine_tuning/jobs."""
    given = request.json()
    kind = _training_type(account, given)
    suffix = given.get("suffix") or ""
    if not re.fullmatch(rf"[a-zA-Z0-9_-]{{0,{MOST_SUFFIX}}}", suffix):
        raise Refusal(
            400,
            "invalidPayload",
            f"The suffix must have up to {MOST_SUFFIX} characters of a-z, A-Z, 0-9, - and _.",
        )
    method = (given.get("method") or {}).get("type", "supervised")
    if method != "supervised":
        raise Refusal(400, "invalidPayload", f"The method '{method}' is not rehearsed here.")
    for name in ("training_file", "validation_file"):
        if given.get(name):
            _require_rows(account, given[name], name)
    if sum(job.status == "pending" for job in account.jobs.values()) >= MOST_WAITING:
        sentence = f"The resource has {MOST_WAITING} jobs that wait; end one, or ask later."
        raise Refusal(429, "quotaExceeded", sentence)
    seed = given.get("seed")
    job = Job(
        id=f"ftjob-{uuid.uuid4().hex}",
        given=given,
        training_type=kind,
        seed=random.randrange(1 << 31) if seed is None else seed,  # noqa: S311 - no secret
    )
    account.jobs[job.id] = job
    reply = Reply(201, job.view())  # as it came; it may be running in a moment
    training.start(azure, account, job)
    return reply


def listed(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET fine_tuning/jobs, newest first."""
    return page(request, [job.view() for job in reversed(list(account.jobs.values()))])


def get(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET fine_tuning/jobs/ID."""
    return Reply(200, _find(account, groups).view())


def events(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET …/events, newest first."""
    return page(request, list(reversed(_find(account, groups).events)))


def checkpoints(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET …/checkpoints, newest first."""
    return page(request, list(reversed(_find(account, groups).checkpoints)))


def cancel(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST …/cancel."""
    job = _find(account, groups)
    if job.status in ENDED:
        raise Refusal(400, "operationNotAllowed", f"The job {job.id} has ended: {job.status}.")
    training.cancel(job)
    return Reply(200, job.view())


def delete(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """DELETE …/ID: Azure forgets an ended job; its model stays."""
    job = _find(account, groups)
    if job.status not in ENDED:
        raise Refusal(409, "operationNotAllowed", f"The job {job.id} is {job.status}; cancel it.")
    del account.jobs[job.id]
    return Reply(204)


def close(azure: Azure) -> None:
    """Cancel all jobs and wait for them."""
    every = [job for account in accounts.of(azure).values() for job in account.jobs.values()]
    for job in every:
        job.canceled.set()
    for job in every:
        if job.thread:
            job.thread.join(60)


def _training_type(account: Account, given: Mapping[str, Any]) -> str:
    """The kind of training; without one, Azure answers as if the model could not be trained."""
    model = str(given["model"])
    base = model.partition(".ft-")[0]
    kind = given.get("trainingType")
    known = MODELS.get(base, ()) if base == model or model in account.models else ()
    if kind is None or str(kind).lower() not in known:
        raise Refusal(
            400, "invalidPayload", "The specified base model does not support fine-tuning."
        )
    return str(kind)


def _require_rows(account: Account, file_id: str, name: str) -> None:
    kept = account.files.get(file_id)
    if kept is None or kept.purpose != "fine-tune":
        raise Refusal(400, "invalidPayload", f"{name} {file_id} does not exist.")
    if kept.status != "processed":
        reason = f": {kept.details}" if kept.details else "."
        raise Refusal(400, "invalidPayload", f"{name} {file_id} is {kept.status}{reason}")


def _find(account: Account, groups: Mapping[str, str]) -> Job:
    job = account.jobs.get(groups["job"])
    if job is None:
        raise Refusal(404, "resourceNotFound", f"Fine-tuning job {groups['job']} was not found.")
    found: Job = job
    return found


def routes(azure: Azure) -> list[Route]:
    every = "/fine_tuning/jobs"
    one = rf"{every}/(?P<job>[^/]+)"
    get_only = plane.refuse_method("GET")
    return [
        plane.route(azure, "POST", every, partial(create, azure)),
        plane.route(azure, "GET", every, listed),
        plane.route(azure, "GET", one, get),
        plane.route(azure, "DELETE", one, delete),
        plane.route(azure, "GET", f"{one}/events", events),
        plane.route(azure, "POST", f"{one}/events", get_only),
        plane.route(azure, "GET", f"{one}/checkpoints", checkpoints),
        plane.route(azure, "POST", f"{one}/checkpoints", get_only),
        plane.route(azure, "POST", f"{one}/cancel", cancel),
    ]

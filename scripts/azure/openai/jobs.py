"""Fine-tuning jobs of Azure OpenAI: found again, created once, followed, cancelled.

    job = newest(service, wanted) or create(service, wanted)
    job = follow(service, job, print)
    best(checkpoints(service, job), "best")

The service chooses a job's id, so a job is found again by its suffix, which ends with a hash of
all that goes into it. Events and checkpoints are read by GET; Microsoft's guide shows POST for the
events, which is refused.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from scripts.azure.openai import files
from scripts.azure.openai.client import TRIES_AGAIN, call, once
from scripts.azure.retry import NotFound, Refused, retry_after
from scripts.console import say
from scripts.errors import CloudError, UsageError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

ENDED = ("succeeded", "failed", "cancelled")
SUFFIX_LENGTH = 40
MARK_DIGITS = 8
TRAINING_TYPES = {
    "Standard": "standard",
    "GlobalStandard": "globalStandard",
    "DeveloperTier": "developerTier",
}
"""By the recipe's name: the letters that the service takes; others it answers with "the base model
does not support fine-tuning", as it does where the field is missing."""
HYPERPARAMETERS: Mapping[str, type] = {
    "n_epochs": int,
    "batch_size": int,
    "learning_rate_multiplier": float,
}
LOOK_SECONDS = 5.0
PAGE = 100
KEPT = 200
"""Events that are read of a job's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a job is to do."""

    model: str
    training_file: str
    """Id of the uploaded file."""
    validation_file: str
    """The same; empty where there is none."""
    suffix: str
    seed: int
    hyperparameters: Mapping[str, int | float]
    training_type: str
    """By the recipe's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the service knows it."""

    id: str
    status: str
    model: str
    """What it started from."""
    tuned: str
    """Name of the model that came of it; empty before."""
    suffix: str
    """Empty where the service does not tell it."""
    seed: int
    training_file: str
    validation_file: str
    result_files: tuple[str, ...]
    created: int
    """Seconds since 1970, as the service writes times."""
    finished: int | None
    tokens: int | None
    """That were billed."""
    error: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def hours(self) -> float | None:
        """From its creation to its end, waiting included."""
        return None if self.finished is None else max(self.finished - self.created, 0) / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The model after one of the last epochs."""

    id: str
    step: int
    train_loss: float | None
    valid_loss: float | None
    """Of the whole validation file where the service measured that, else of the step's batch."""
    model: str
    """What a deployment names it by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A checkpoint, and why it was taken."""

    checkpoint: Checkpoint
    reason: str


def suffix(name: str, mark: str) -> str:
    """The job's suffix: the recipe's, cut to what fits, and the beginning of the hash."""
    return f"{stem(name)}-{mark[:MARK_DIGITS]}"


def stem(name: str) -> str:
    """What the suffixes of all jobs of that name begin with."""
    return name[: SUFFIX_LENGTH - MARK_DIGITS - 1].rstrip("-")


def listed(service: "OpenAI") -> list[Job]:
    """All jobs there, the newest first."""
    found = call("list the jobs", lambda: list(service.fine_tuning.jobs.list(limit=PAGE)))
    return sorted(map(_job, found), key=lambda job: job.created, reverse=True)


def same(service: "OpenAI", wanted: Wanted) -> list[Job]:
    """The jobs that did or do the same, the newest first."""
    return [job for job in listed(service) if _same(job, wanted)]


def of_recipe(service: "OpenAI", recipe: str, name: str) -> list[Job]:
    """The jobs of the recipe, whose suffixes begin with `name`, the newest first."""
    found = listed(service)
    begin = f"{stem(name)}-"
    length = len(begin) + MARK_DIGITS
    own: set[str] = set()
    if any(not job.suffix for job in found):
        begun = files.name_of(recipe, "train", "").removesuffix(".jsonl")
        own = {file.id for file in files.listed(service) if file.name.startswith(begun)}
    return [
        job
        for job in found
        if (len(job.suffix) == length and job.suffix.startswith(begin))
        or (not job.suffix and job.training_file in own)
    ]


def _same(job: Job, wanted: Wanted) -> bool:
    if job.model != wanted.model:
        return False
    if job.suffix or job.tuned:
        return job.suffix == wanted.suffix or job.tuned.endswith(f"-{wanted.suffix}")
    rest = (job.seed, job.training_file, job.validation_file)
    return rest == (wanted.seed, wanted.training_file, wanted.validation_file)


def read(service: "OpenAI", name: str) -> Job:
    """The job; UsageError where there is none."""
    try:
        return _job(call(f"read job {name}", lambda: service.fine_tuning.jobs.retrieve(name)))
    except NotFound:
        raise UsageError(
            f"there is no fine-tuning job {name}: leave JOB away for the recipe's newest."
        ) from None


def create(service: "OpenAI", wanted: Wanted) -> Job:
    """A new job, asked for once but where the service puts it off (429).

    Where the answer is lost, the job is looked for.
    """
    options: dict[str, Any] = {
        "model": wanted.model,
        "training_file": wanted.training_file,
        "seed": wanted.seed,
        "suffix": wanted.suffix,
        "hyperparameters": dict(wanted.hyperparameters),
        # always: without it the service says that the model cannot be fine-tuned
        "extra_body": {"trainingType": TRAINING_TYPES[wanted.training_type]},
    }
    if wanted.validation_file:
        options["validation_file"] = wanted.validation_file
    there = {job.id for job in same(service, wanted)}
    try:
        return _job(_created(service, options))
    except Refused as error:
        if error.status < 500 and error.status != 408:
            raise
        failure: CloudError = error
    except CloudError as error:
        failure = error
    for job in same(service, wanted):
        if job.id not in there:
            return job
    raise failure


def _created(service: "OpenAI", options: Mapping[str, Any]) -> Any:
    for left in reversed(range(TRIES_AGAIN + 1)):
        try:
            return call("create the job", lambda: once(service).fine_tuning.jobs.create(**options))
        except Refused as error:
            if error.status != 429 or not left:
                raise
            wait = retry_after(error.__cause__ or error) or LOOK_SECONDS
            say(f"azure:  Azure OpenAI answered 429; create the job again in {wait:.0f} s")
            time.sleep(wait)


def follow(
    service: "OpenAI",
    job: Job,
    write: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Write the events as they come, until the job has ended; the job then."""
    seen: set[str] = set()
    state = ""
    while True:
        job = read(service, job.id)
        for key, line in events(service, job.id):
            if key not in seen:
                seen.add(key)
                write(line)
        if job.status != state:
            state = job.status
            write(f"[{state}]")
        if job.over:
            return job
        sleep(LOOK_SECONDS)


def events(service: "OpenAI", name: str) -> list[tuple[str, str]]:
    """Id and line of the last events, the oldest first."""

    def get() -> list[Any]:
        found: list[Any] = []
        for event in service.fine_tuning.jobs.list_events(name, limit=PAGE):
            found.append(event)
            if len(found) >= KEPT:
                break
        return found

    found = call(f"read the events of {name}", get)
    found.reverse()  # they come newest first, several within a second
    found.sort(key=lambda event: event.created_at)
    return [(event.id, _line(event)) for event in found]


def _line(event: Any) -> str:
    when = time.strftime("%H:%M:%S", time.gmtime(event.created_at))
    level = "" if event.level == "info" else f"{event.level}: "
    return f"{when} {level}{' '.join(event.message.split())}"


def cancel(service: "OpenAI", name: str, *, sleep: Callable[[float], None] = time.sleep) -> Job:
    """Cancel it and wait until it has ended; a job that is over stays as it is."""
    job = read(service, name)
    if not job.over:
        call(f"cancel {name}", lambda: service.fine_tuning.jobs.cancel(name))
        while not (job := read(service, name)).over:
            sleep(LOOK_SECONDS)
    return job


def checkpoints(service: "OpenAI", job: Job) -> tuple[Checkpoint, ...]:
    """What can be deployed of the job, in the order of training.

    The last one is the fine-tuned model itself; the others are named by their id, since the
    service gives all of them the model's name.
    """
    found = call(
        f"list the checkpoints of {job.id}",
        lambda: list(service.fine_tuning.jobs.checkpoints.list(job.id)),
    )
    found.sort(key=lambda each: each.step_number)
    made = []
    for each in found:
        metrics = each.metrics
        own = each.fine_tuned_model_checkpoint
        name = own if own and own != job.tuned else each.id
        if each is found[-1] and job.tuned:
            name = job.tuned
        valid = metrics.full_valid_loss
        made.append(
            Checkpoint(
                id=each.id,
                step=each.step_number,
                train_loss=metrics.train_loss,
                valid_loss=metrics.valid_loss if valid is None else valid,
                model=name,
            )
        )
    return tuple(made)


def choose(found: Sequence[Checkpoint], asked: str) -> Choice:
    """The checkpoint by cloud.openai.checkpoint: `best`, `last` or an id; with the reason."""
    if not found:
        raise CloudError("the job has left no checkpoint: nothing can be deployed.")
    last = found[-1]
    if asked == "last":
        return Choice(checkpoint=last, reason="cloud.openai.checkpoint is last")
    if asked != "best":
        for each in found:
            if asked in (each.id, each.model, f"step-{each.step}"):
                return Choice(checkpoint=each, reason=f"cloud.openai.checkpoint is {asked}")
        known = ", ".join(each.id for each in found)
        raise UsageError(
            f"cloud.openai.checkpoint is {asked}, which the job has not; use best, last or one of: "
            f"{known}."
        )
    measured = [(each.valid_loss, each) for each in found if each.valid_loss is not None]
    if not measured:
        return Choice(checkpoint=last, reason="no validation loss was measured, so it is the last")
    loss, lowest = min(measured, key=lambda row: (row[0], -row[1].step))
    others = [f"{loss:.4f} at step {each.step}" for loss, each in measured]
    reason = f"the lowest validation loss, {loss:.4f} at step {lowest.step}"
    if len(measured) > 1:
        reason += f" (of {', '.join(others)})"
    if lowest is not last:
        reason += "; training went past it"
    return Choice(checkpoint=lowest, reason=reason)


def hyperparameters(epochs: float, given: Mapping[str, Any]) -> dict[str, int | float]:
    """The service's own names: the recipe's epochs, and over them cloud.parameters."""
    found: dict[str, int | float] = {"n_epochs": max(1, round(epochs))}
    for key, value in given.items():
        kind = HYPERPARAMETERS.get(key)
        if kind is None:
            raise UsageError(
                f"cloud.parameters: Azure OpenAI has no hyperparameter {key}; it has "
                f"{', '.join(HYPERPARAMETERS)}."
            )
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if number <= 0 or (kind is int and number != int(number)):
            article = "a whole number" if kind is int else "a number"
            raise UsageError(f"cloud.parameters.{key} is {value}: give {article} above 0.")
        found[key] = int(number) if kind is int else number
    return found


def _job(found: "FineTuningJob") -> Job:
    more = found.model_extra or {}
    error = found.error
    said = " ".join(filter(None, (error.code, error.message))) if error else ""
    return Job(
        id=found.id,
        status=cast("str", found.status),
        model=found.model,
        tuned=found.fine_tuned_model or "",
        suffix=str(more.get("user_provided_suffix") or more.get("suffix") or ""),
        seed=found.seed,
        training_file=found.training_file,
        validation_file=found.validation_file or "",
        result_files=tuple(found.result_files or ()),
        created=found.created_at,
        finished=found.finished_at,
        tokens=found.trained_tokens,
        error=said,
        hyperparameters=found.hyperparameters.model_dump() if found.hyperparameters else {},
    )

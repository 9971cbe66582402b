"""One Azure ML job by its name: found, submitted, followed, ended in time.

    done = go(work, base, submit, detach=False)      # Attempted(job, end)
    logs(cloud, recipe, ""); cancel(cloud, recipe, "")

The name says what the job does (names.py), so the same command finds the same job: it takes the
result of one that is completed, follows one that runs, and says why one has failed before it makes
the next attempt, `base-2` and so on. What a job is and what it costs is its route's; how it is sent
and read is jobs.py's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.azure import history, jobs, names
from scripts.azure.client import NotFound
from scripts.azure.history import Details
from scripts.azure.jobs import Job
from scripts.azure.routes import Work
from scripts.azure.texts import hours
from scripts.console import say
from scripts.errors import CloudError
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud

Look = Callable[[Details], None]
"""Is handed what run history knows of a job while it is followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """What became of the job."""

    job: Job
    end: Details | None
    """Completed; None where nobody waited for it (DETACH=1)."""


def go(
    work: Work,
    base: str,
    submit: Callable[[str], Job],
    *,
    detach: bool,
    max_hours: float | None = None,
    look: Look | None = None,
) -> Attempted:
    """Find the job or have `submit` make its next attempt, and follow it.

    `base` is the name of the first attempt; empty where it is not known before `submit`, which
    then chooses it. `submit` gets the attempt's name, plans, asks, uploads and sends. With
    `max_hours`, for jobs that Azure sets no limit, it is cancelled when it has worked longer than
    that, as long as somebody follows it. `look` is handed what run history knows, every other
    second. CloudError where the job does not complete.
    """
    cloud = work.cloud
    tried = jobs.attempts(cloud, base) if base else []
    job = tried[-1] if tried else None
    if job is None or (job.over and job.status != "Completed"):
        if job:
            say(f"job:    {job.name} {job.status}: {_why(cloud, job)}")
        job = submit(names.attempt(base, len(tried) + 1) if base else "")
        say(f"job:    {job.name} is submitted")
    elif job.over:
        say(f"job:    {job.name} has done this already")
    else:
        say(f"job:    {job.name} is {job.status} already; nothing is submitted")
    if job.studio and not cloud.workspace.rehearsal:
        say(f"page:   {job.studio}")
    limit = Limit(cloud, job.name, max_hours, look)
    if detach:
        if limit.alone and not job.over:
            say(f"limit:  {limit.alone}")
        return Attempted(job=job, end=None)
    end = jobs.follow(cloud, job.name, say, command=work.again, look=limit.look, alone=limit.alone)
    if limit.reached and end.status != "Completed":
        raise CloudError(
            f"job {job.name} was cancelled, because it had worked longer than the "
            f"{hours(max_hours or 0)} of cloud.max_hours. Next: raise that, then {work.again} "
            "makes another attempt."
        )
    if end.status != "Completed":
        # a pipeline's or fine-tuning job's checkpoints are the service's own
        further = ", which goes on from the last checkpoint" if job.kind == "Command" else ""
        raise CloudError(
            f"job {job.name} {end.status}: {jobs.why(cloud, job, end)} Next: {work.again} "
            f"makes another attempt{further}."
        )
    return Attempted(job=job, end=end)


class Limit:
    """Ends a job that works longer than it may, where Azure does not."""

    def __init__(
        self,
        cloud: "Cloud",
        job: str,
        most: float | None,
        look: Look | None = None,
    ) -> None:
        self._cloud = cloud
        self._job = job
        self._hours = most
        self._look = look
        self.reached = False

    @property
    def alone(self) -> str:
        """What is to be known where nobody follows the job; empty where Azure ends it."""
        if self._hours is None:
            return ""
        return (
            f"Azure sets this job none; only who follows it ends it after {hours(self._hours)} "
            "(cloud.max_hours)"
        )

    def look(self, now: Details) -> None:
        """Cancel the job once it has worked too long; following it then sees its end."""
        if self._look:
            self._look(now)
        if self._hours is None or self.reached or now.over or now.hours <= self._hours:
            return
        self.reached = True
        say(
            f"limit:  {self._job} works for longer than {hours(self._hours)} (cloud.max_hours); "
            "cancelling it"
        )
        jobs.begin_cancel(self._cloud, self._job)


def _why(cloud: "Cloud", job: Job) -> str:
    """Why an earlier attempt did not complete; history may have forgotten it."""
    if job.status == "Canceled":
        return "somebody cancelled it"
    try:
        return jobs.why(cloud, job, history.details(cloud, job.name))
    except NotFound:
        return "run history does not know it any more"


def logs(
    cloud: "Cloud",
    recipe: Recipe,
    job: str,
    *,
    every: bool = False,
    read: Callable[["Cloud", str], Mapping[str, str]] = history.read,
    look: Callable[[str, Callable[[str], None]], Look] | None = None,
) -> Mapping[str, Any]:
    """Follow the job's log on stdout, or with `every` read all of its log files as they are.

    Jobs with steps give `read` for all their files, and what is to `look` after the steps of a job
    by its name and write what they say.
    """
    found = jobs.named_or_newest(cloud, job, recipe.name)
    if every:
        details, texts = history.details(cloud, found.name), read(cloud, found.name)
        return {
            "job": found.name,
            "status": details.status,
            "error": details.error,
            "logs": texts,
        }
    end = jobs.follow(
        cloud,
        found.name,
        _line,
        command=f"make cloud-logs JOB={found.name}",
        look=look(found.name, _line) if look else None,
    )
    if end.status == "Failed":
        raise CloudError(f"job {found.name} Failed: {jobs.why(cloud, found, end)}")
    return {"job": found.name, "status": end.status, "error": end.error}


def cancel(cloud: "Cloud", recipe: Recipe, job: str) -> Mapping[str, Any]:
    """Cancel the job and wait until it has ended."""
    found = jobs.named_or_newest(cloud, job, recipe.name)
    if found.over:
        say(f"job:    {found.name} was over already; nothing to cancel")
    end = jobs.cancel(cloud, found.name)
    say(f"job:    {jobs.ended(found, end)}")
    return {
        "job": found.name,
        "status": end.status,
        "hours": round(end.hours, 4),
        "cost_at_most": found.cost_at_most(end),
    }


def _line(line: str) -> None:
    print(line, flush=True)

"""The steps of a pipeline job: their states, logs and metrics, from run history and MLflow.

    watch = Watch(cloud, "phi-3-0123456789", print)
    jobs.follow(cloud, name, say, look=watch.look)      # as the job goes on
    for step in under(cloud, name): print(step.title, metrics(cloud, step.run))

A pipeline of the registry is a step itself, whose steps are runs below it; all of them are told,
by the names that the registry gives them. It changes nothing.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.azure import causes, history
from scripts.azure.client import Cloud, NotFound
from scripts.azure.history import ENDED, HISTORY_API, Details, Reader
from scripts.azure.texts import columns
from scripts.console import say
from scripts.errors import CloudError

DEEPEST = 3
"""Levels of steps: the pipeline, the registry's pipeline in it, and the steps of that."""
LOOK_SECONDS = 10.0
"""Between looks at the steps; the job itself is looked at more often."""
TAIL = 5000
"""Characters at the end of each log of a failed step in which a cause is looked for."""
BUILT_IN = ("mlflow.", "system/")
"""Beginnings of metrics that the service logs of every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One run below a job."""

    run: str
    """Its id, which is its job's name."""
    title: str
    """What the pipeline calls it."""
    status: str
    depth: int = 1

    @property
    def over(self) -> bool:
        return self.status in ENDED


def under(cloud: Cloud, job: str, depth: int = 1) -> list[Step]:
    """All steps of the job, each before its own, in the order in which they were made."""
    base = f"{cloud.workspace.api}/history/v1.0{cloud.workspace.id}/runs/{job}/children"
    try:
        found = cloud.rest.all(base, HISTORY_API)
    except NotFound:
        return []
    steps = []
    for run in sorted(found, key=lambda run: str(run.get("createdUtc") or "")):
        name = str(run["runId"])
        steps.append(
            Step(
                run=name,
                title=str(run.get("displayName") or name),
                status=str(run.get("status") or "Unknown"),
                depth=depth,
            )
        )
        if depth < DEEPEST:
            steps += under(cloud, name, depth + 1)
    return steps


def metrics(cloud: Cloud, run: str) -> dict[str, float]:
    """The last value of each metric that the run has logged; none where it has logged nothing."""
    address = f"{cloud.workspace.api}/mlflow/v2.0{cloud.workspace.id}/api/2.0/mlflow/runs/get"
    try:
        found = cloud.rest.get(address, run_id=run)
    except NotFound:
        return {}
    rows = (found["run"].get("data") or {}).get("metrics") or []
    return {str(row["key"]): float(row["value"]) for row in rows}


def measured(cloud: Cloud, job: str) -> dict[str, dict[str, float]]:
    """The metrics of the job and of its steps, by step; only those that have any."""
    runs = [(job, "pipeline"), *((step.run, step.title) for step in under(cloud, job))]
    found: dict[str, dict[str, float]] = {}
    for run, title in runs:
        values = {k: v for k, v in metrics(cloud, run).items() if not k.startswith(BUILT_IN)}
        if values:
            found.setdefault(title, {}).update(values)
    return found


def table(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The metrics for people, a line each."""
    rows = [
        (step if number == 0 else "", name, f"{value:.6g}")
        for step, values in found.items()
        for number, (name, value) in enumerate(sorted(values.items()))
    ]
    return columns(rows) if rows else []


def logs(cloud: Cloud, job: str) -> dict[str, str]:
    """Every log file of the job and of its steps, as they are now."""
    texts = dict(history.read(cloud, job))
    for step in under(cloud, job):
        for name, text in history.read(cloud, step.run).items():
            texts[f"{step.title}/{name}"] = text
    return texts


class Watch:
    """Tells of a job's steps while it is followed: each change of state, and what they print."""

    def __init__(
        self,
        cloud: Cloud,
        job: str | Callable[[], str],
        write: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cloud = cloud
        self._job = job
        self._write = write
        self._clock = clock
        self._next = 0.0
        self._told: dict[str, str] = {}
        self._readers: dict[str, Reader] = {}
        self._done: set[str] = set()

    def look(self, now: Details) -> None:
        """Look at the steps, not more often than every LOOK_SECONDS while the job goes on.

        Where a look fails the next one makes up for it; following the job goes on.
        """
        moment = self._clock()
        if moment < self._next and not now.over:
            return
        self._next = moment + LOOK_SECONDS
        with contextlib.suppress(CloudError):
            name = self._job if isinstance(self._job, str) else self._job()
            self._job = name
            for step in under(self._cloud, name):
                if step.run not in self._done:
                    self._tell(step)

    def _cause(self, step: Step, details: Details) -> str:
        """A known cause in the end of the step's logs; empty where there is none."""
        tails = (text[-TAIL:] for text in history.read(self._cloud, step.run).values())
        return causes.explain("\n".join((details.error, *tails))) or ""

    def _tell(self, step: Step) -> None:
        import requests

        details = history.details(self._cloud, step.run)
        if self._told.get(step.run) != step.status:
            self._told[step.run] = step.status
            failed = f": {details.error}" if step.status == "Failed" and details.error else ""
            say(f"step:   {'  ' * (step.depth - 1)}{step.title} {step.status}{failed}")
            if step.status == "Failed" and (cause := self._cause(step, details)):
                say(f"cause:  {cause}")
        reader = self._readers.setdefault(step.run, Reader(self._write))
        with requests.Session() as session:
            reader.read_on(session, details.logs)
        if step.over:
            reader.finish()
            self._done.add(step.run)

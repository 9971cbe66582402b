"""Jobs of Azure ML: found by name, submitted once, followed, cancelled.

    job = latest(cloud, base)                     # the newest attempt, or None
    job = submit(cloud, specs.job(name=…))        # one job in all, even where a reply is lost
    end = follow(cloud, job.name, print)

A job's name says what it does (names.py), so a name that exists is that job. It plans nothing and
asks nobody: attempts.py and the routes do. Command jobs are sent here; the others by their routes.
"""

import datetime
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.azure import causes, client, history, names, prices, retry, specs
from scripts.azure.client import Cloud, NotFound
from scripts.azure.history import ENDED, Details
from scripts.azure.retry import Refused
from scripts.azure.tags import MACHINE, RECIPE, ours
from scripts.azure.texts import moment, money, span
from scripts.console import INTERRUPTED, say
from scripts.errors import CloudError
from train.recipe import Recipe

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command

JOBS_API = "2024-01-01-preview"
COMPUTES_API = "2023-08-01-preview"
"""api-versions of jobs and computes, as azure-ai-ml 1.34 reads them."""
TAIL_LINES = 50
"""Lines at the end of each log in which a cause is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the verbs need of a job."""

    name: str
    status: str
    tags: Mapping[str, str]
    created: str
    """ISO time."""
    instance: str
    """Its machine's name; empty where it runs on a cluster that is gone."""
    nodes: int
    spot: bool
    studio: str
    """Its page."""
    kind: str = "Command"
    """`Command`, `Pipeline` or `FineTuning`."""

    @property
    def over(self) -> bool:
        return self.status in ENDED

    def cost_at_most(self, end: Details) -> float | None:
        """US dollars of its machines, if they were its own from submission to end.

        None where their price is not known. Azure bills from a machine's allocation, which run
        history does not tell; it lies between submission and start.
        """
        price = prices.per_hour(self.instance, spot=self.spot)
        until = end.ended or datetime.datetime.now(datetime.UTC)
        created = moment(self.created) or end.started or until
        hours = max((until - created).total_seconds(), 0) / 3600
        return None if price is None else price * self.nodes * hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a job runs on, as far as its own record tells."""

    instance: str
    """Empty where it is the cluster's."""
    nodes: int
    spot: bool
    compute: str
    """ARM id of its cluster; empty: serverless."""


def machine(properties: Mapping[str, Any]) -> Machine:
    """The machine of a job of any kind, of its record's properties.

    A command job names it, a fine-tuning job names those that would do, and of a pipeline only its
    steps know, so that our tag says it.
    """
    resources = properties.get("resources") or {}
    names = [resources.get("instanceType"), *(resources.get("instanceTypes") or [])]
    instance = next((str(name) for name in names if name), "")
    nodes = int(resources.get("instanceCount") or 1)
    tier = str((properties.get("queueSettings") or {}).get("jobTier") or "")
    spot = tier.lower() == "spot"
    settings = properties.get("settings") or {}
    compute = properties.get("computeId") or settings.get("default_compute") or ""
    compute = compute if "/computes/" in str(compute) else ""
    tag = str((properties.get("tags") or {}).get(MACHINE) or "")
    if not instance and (said := re.fullmatch(r"(\d+) x (\S+)( spot)?", tag)):
        nodes, instance, spot = int(said[1]), said[2], bool(said[3])
    return Machine(instance=instance, nodes=nodes, spot=spot, compute=str(compute))


def machine_tag(instance: str, nodes: int = 1, *, spot: bool = False) -> dict[str, str]:
    """The tag by which `machine` knows a pipeline's."""
    return {MACHINE: f"{nodes} x {instance}{' spot' if spot else ''}"}


def get(cloud: Cloud, name: str) -> Job | None:
    """The job of that name; None where there is none."""
    try:
        found = cloud.rest.get(f"{cloud.workspace.id}/jobs/{name}", JOBS_API)
    except NotFound:
        return None
    return _job(cloud, found)


def find(cloud: Cloud, name: str) -> Job:
    """The job of that name; CloudError where there is none."""
    job = get(cloud, name)
    if job is None:
        raise CloudError(
            f"there is no job {name} in workspace {cloud.workspace.name}: make cloud-status lists "
            "the latest."
        )
    return job


def attempts(cloud: Cloud, base: str) -> list[Job]:
    """All attempts of the job, the first one first."""
    found: list[Job] = []
    while job := get(cloud, names.attempt(base, len(found) + 1)):
        found.append(job)
    return found


def newest_first(cloud: Cloud, recipe: str = "") -> list[Job]:
    """Our jobs, the newest first; of one recipe where it is named."""
    listed = cloud.rest.all(f"{cloud.workspace.id}/jobs", JOBS_API, listViewType="ActiveOnly")
    jobs = [
        _job(cloud, item)
        for item in listed
        if ours(tags := item["properties"].get("tags") or {}) and recipe in ("", tags.get(RECIPE))
    ]
    return sorted(jobs, key=lambda job: job.created, reverse=True)


def named_or_newest(cloud: Cloud, name: str, recipe: str) -> Job:
    """The job of that name, else the recipe's newest; CloudError where there is none."""
    if name:
        return find(cloud, name)
    if jobs := newest_first(cloud, recipe):
        return jobs[0]
    raise CloudError(
        f"recipe {recipe} has no job in workspace {cloud.workspace.name}; next: make cloud-train"
    )


def _job(cloud: Cloud, found: Mapping[str, Any]) -> Job:
    properties = found["properties"]
    on = machine(properties)
    instance, spot = on.instance, on.spot
    if not instance and on.compute:
        instance, spot = _machine(cloud, on.compute)
    studio = (properties.get("services") or {}).get("Studio") or {}
    return Job(
        name=found["name"],
        status=properties.get("status") or "Unknown",
        tags=properties.get("tags") or {},
        created=(found.get("systemData") or {}).get("createdAt") or "",
        instance=instance,
        nodes=on.nodes,
        spot=spot,
        studio=str(studio.get("endpoint") or ""),
        kind=str(properties.get("jobType") or "Command"),
    )


def _machine(cloud: Cloud, compute: str) -> tuple[str, bool]:
    """Machine of a cluster and whether it is low-priority; empty where the cluster is gone."""
    try:
        found = cloud.rest.get(compute, COMPUTES_API)
    except NotFound:
        return "", False
    properties = found["properties"].get("properties") or {}
    low = str(properties.get("vmPriority") or "").lower() == "lowpriority"
    return str(properties.get("vmSize") or ""), low


def ensure_compute(cloud: Cloud, recipe: Recipe, tags: Mapping[str, str]) -> None:
    """Make the cluster that the recipe names, with no node at rest, unless it is there."""
    name = recipe.cloud.compute
    if not name:
        return
    try:
        retry.call(f"look for cluster {name}", lambda: cloud.ml.compute.get(name))
        return
    except NotFound:
        say(f"compute: making cluster {name}, which has no node while no job runs")
    entity = specs.compute(recipe, tags=tags)
    retry.call(
        f"make cluster {name}", lambda: cloud.ml.compute.begin_create_or_update(entity).result()
    )


def submit(cloud: Cloud, job: "Command") -> Job:
    """Submit the job, or find it: before every try the name is looked up.

    So a request whose reply was lost is never sent a second time; nor is one by the SDK itself.
    """
    once = client.client(cloud.credential, cloud.workspace, retry_total=0)
    name = str(job.name)

    def found_or_sent() -> Job | None:
        return get(cloud, name) or (once.jobs.create_or_update(job) and None)

    try:
        known = retry.call(f"submit job {name}", found_or_sent)
    except Refused as refused:
        if cause := causes.explain(str(refused)):
            raise CloudError(f"{refused} Known cause: {cause}") from refused
        raise
    return known or find(cloud, name)


def follow(
    cloud: Cloud,
    name: str,
    write: Callable[[str], None],
    *,
    command: str = "make cloud-train",
    look: Callable[[Details], None] | None = None,
    alone: str = "",
) -> Details:
    """Show the log until the job ends, then its state, duration and cost; the details.

    Ctrl-C ends the process with 130, not the job, after saying how to come back to it, and what
    else the user must know of a job that is left `alone`. `look` is called at each look at it.
    """
    try:
        end = history.follow(cloud, name, write, look=look)
    except KeyboardInterrupt:
        say("")
        say(f"job:    {name} goes on without you, and bills until it ends")
        if alone:
            say(f"limit:  {alone}")
        say(f"follow: {command}")
        say(f"cancel: make cloud-cancel JOB={name}")
        sys.exit(INTERRUPTED)
    except CloudError as error:
        raise CloudError(
            f"{error} The job goes on without you; follow it again with {command}, or end it: "
            f"make cloud-cancel JOB={name}"
        ) from error
    say(f"job:    {ended(find(cloud, name), end)}")
    return end


def ended(job: Job, end: Details) -> str:
    """The job's state, duration and cost in one line."""
    line = f"{job.name} {end.status} after {span(end.hours * 3600)} of work"
    cost = job.cost_at_most(end)
    if cost is None:
        return f"{line} on {job.instance or 'a machine'} of unknown price"
    machines = f"{job.nodes} x {job.instance}{' spot' if job.spot else ''}"
    return f"{line}; it cost at most {money(cost)} ({machines}, counted from its submission)"


def why(cloud: Cloud, job: Job, end: Details) -> str:
    """Why it failed in one sentence: a known cause, else the service's words."""
    logs = history.read(cloud, job.name)
    tail = "\n".join("\n".join(text.splitlines()[-TAIL_LINES:]) for text in logs.values())
    own = _last_error(tail)
    known = causes.explain(f"{end.error}\n{tail}")
    if known and own:
        return f"{known} It said: {own}"
    return known or own or end.error or "Azure does not say why."


def _last_error(text: str) -> str:
    """The last line in which our own program says what is wrong."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return lines[-1].removeprefix("error: ") if lines else ""


def cancel(cloud: Cloud, name: str) -> Details:
    """Cancel the job and wait until it has ended; the details."""
    job = find(cloud, name)
    if not job.over:
        say(f"job:    {name} is {job.status}; cancelling it")
        poller = begin_cancel(cloud, name)
        retry.call(f"wait for the end of job {name}", poller.result)
    return history.until_over(cloud, name)


def begin_cancel(cloud: Cloud, name: str) -> Any:
    """Ask for the job's end; the poller of it."""
    return retry.call(f"cancel job {name}", lambda: cloud.ml.jobs.begin_cancel(name))

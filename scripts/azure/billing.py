"""What bills in the workspace: since when, how much per hour, and how much so far.

    inventory = survey(cloud)
    bill(inventory, datetime.now(UTC)).lines

Prices are those of prices.py: list prices of one day, without discounts, taxes and storage. An
endpoint's deployments bill from creation to deletion, with traffic or without; a serverless job
bills from the moment it got its machine; a cluster bills for the nodes that are up. The invoice is
Azure's; this is an estimate that is never lower than list price for what is there now.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from scripts.azure import endpoints, history
from scripts.azure.client import Cloud
from scripts.azure.endpoints import Deployment, Endpoint
from scripts.azure.history import ENDED
from scripts.azure.jobs import COMPUTES_API, JOBS_API, machine
from scripts.azure.openai import inventory as openai
from scripts.azure.openai.inventory import Hosted, Running
from scripts.azure.prices import per_hour as price
from scripts.azure.retry import NotFound
from scripts.azure.tags import OURS, ours
from scripts.azure.texts import moment
from scripts.errors import CloudError
from train.recipe import Recipe

Kind = Literal["deployment", "job", "compute", "openai"]

FINISHED = {*ENDED, "NotResponding"}
STARTED = ("Preparing", "Provisioning", "Running", "Finalizing", "CancelRequested", "Paused")
RECENT = 5
"""Finished jobs that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job; a serverless one bills from `started` to `ended`."""

    name: str
    status: str
    tags: Mapping[str, str]
    compute: str
    """Name of its cluster; empty: serverless."""
    instance_type: str
    nodes: int
    spot: bool
    limit: timedelta | None
    created: datetime | None
    started: datetime | None
    ended: datetime | None
    studio: str
    """Its page; empty where Azure gave none."""

    @property
    def ours(self) -> bool:
        return ours(self.tags)

    @property
    def running(self) -> bool:
        return self.status not in FINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """A cluster or instance; it bills for the nodes that are up."""

    name: str
    kind: str
    """AmlCompute, ComputeInstance, …"""
    state: str
    size: str
    spot: bool
    nodes: int
    most: int
    least: int
    tags: Mapping[str, str]

    @property
    def ours(self) -> bool:
        return ours(self.tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What is in the workspace."""

    endpoints: tuple[Endpoint, ...]
    jobs: tuple[Job, ...]
    computes: tuple[Compute, ...]
    hosted: tuple[Hosted, ...] = ()
    """Deployments of Azure OpenAI."""
    tuning: tuple[Running, ...] = ()
    """Jobs of Azure OpenAI that have not ended; they bill by tokens, when they are done."""
    unread: str = ""
    """Why Azure OpenAI could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One thing that bills now."""

    what: Kind
    name: str
    """A deployment's is `endpoint/deployment`, or with Azure OpenAI `resource/deployment`."""
    ours: bool
    instance_type: str
    count: int
    spot: bool
    since: datetime | None
    per_hour: float | None
    """USD for all of `count`; None where the price is not known."""
    accrued: float | None
    """USD from `since` until now; None where one of the two is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """All that bills at one moment."""

    charges: tuple[Charge, ...]

    def ours(self) -> "Bill":
        return Bill(charges=tuple(charge for charge in self.charges if charge.ours))

    @property
    def per_hour(self) -> float:
        """USD per hour of what has a known price."""
        return sum(charge.per_hour or 0.0 for charge in self.charges)

    @property
    def accrued(self) -> float:
        """USD so far of what has a known price and beginning."""
        return sum(charge.accrued or 0.0 for charge in self.charges)

    @property
    def unknown(self) -> list[str]:
        """Machines whose price is not known."""
        return sorted({c.instance_type or "?" for c in self.charges if c.per_hour is None})


def bill(inventory: Inventory, now: datetime) -> Bill:
    """What bills at `now`."""
    charges = [
        charge(
            "deployment",
            f"{d.endpoint}/{d.name}",
            d.ours or endpoint.ours,
            d.instance_type,
            d.instances,
            d.created,
            now,
        )
        for endpoint in inventory.endpoints
        for d in endpoint.deployments
    ]
    sizes = {compute.name: compute.size for compute in inventory.computes}
    busy: dict[str, int] = {}
    for job in inventory.jobs:
        if not job.running or not (job.started or job.status in STARTED):
            continue
        busy[job.compute] = busy.get(job.compute, 0) + job.nodes
        size = job.instance_type or sizes.get(job.compute, "")
        charges.append(
            charge("job", job.name, job.ours, size, job.nodes, job.started, now, spot=job.spot)
        )
    for compute in inventory.computes:
        # nodes that work on a job were counted with it
        if (idle := compute.nodes - busy.get(compute.name, 0)) > 0:
            charges.append(
                charge(
                    "compute",
                    compute.name,
                    compute.ours,
                    compute.size,
                    idle,
                    None,
                    now,
                    spot=compute.spot,
                )
            )
    charges += [_hosted(hosted, now) for hosted in inventory.hosted if hosted.per_hour != 0]
    return Bill(charges=tuple(charges))


def _hosted(hosted: Hosted, now: datetime) -> Charge:
    """A fine-tuned model bills for standing there, whatever it is asked."""
    return Charge(
        what="openai",
        name=hosted.name,
        ours=hosted.ours,
        instance_type=f"{hosted.model}, {hosted.sku}",
        count=1,
        spot=False,
        since=hosted.since,
        per_hour=hosted.per_hour,
        accrued=cost(hosted.per_hour, hosted.since, now),
    )


def charge(
    what: Kind,
    name: str,
    ours: bool,
    instance_type: str,
    count: int,
    since: datetime | None,
    now: datetime,
    *,
    spot: bool = False,
) -> Charge:
    """One thing that bills, with what it has cost until `now`."""
    rate = price(instance_type, spot=spot)
    per_hour = None if rate is None else rate * count
    return Charge(
        what=what,
        name=name,
        ours=ours,
        instance_type=instance_type,
        count=count,
        spot=spot,
        since=since,
        per_hour=per_hour,
        accrued=cost(per_hour, since, now),
    )


def cost(per_hour: float | None, since: datetime | None, until: datetime) -> float | None:
    """USD of a time span; None where price or beginning is not known."""
    if per_hour is None or since is None:
        return None
    return per_hour * max(0.0, (until - since).total_seconds()) / 3600


def total(
    deployments: Iterable[Deployment], *, without: Collection[Deployment] = ()
) -> float | None:
    """USD per hour of these deployments; None where the price of one is not known."""
    rates = [
        None if (rate := price(d.instance_type)) is None else rate * d.instances
        for d in deployments
        if d not in without
    ]
    return None if None in rates else sum(rate for rate in rates if rate)


def survey(cloud: Cloud, recipe: Recipe | None = None) -> Inventory:
    """All endpoints and computes of the workspace, its jobs that run, and our latest others.

    With what stands and trains in the Azure OpenAI resources beside it, and with `recipe` in the
    one that it deploys to; `unread` says why not.
    """
    computes = map(read_compute, cloud.rest.all(f"{cloud.workspace.id}/computes", COMPUTES_API))
    hosted: tuple[Hosted, ...] = ()
    tuning: tuple[Running, ...] = ()
    unread = ""
    try:
        hosted, tuning = openai.survey(cloud, recipe), openai.running(cloud)
    except CloudError as error:  # a role may be lacking there, and the rest is worth knowing
        unread = str(error)
    return Inventory(
        hosted=hosted,
        tuning=tuning,
        unread=unread,
        endpoints=tuple(endpoints.every(cloud)),
        jobs=tuple(_jobs(cloud)),
        computes=tuple(sorted(computes, key=lambda compute: compute.name)),
    )


def _jobs(cloud: Cloud) -> list[Job]:
    """Our jobs that run and the latest others, newest first, with their times."""
    path = f"{cloud.workspace.id}/jobs"
    found = map(read_job, cloud.rest.all(path, JOBS_API, listViewType="ActiveOnly", tag=OURS))
    oldest = datetime.min.replace(tzinfo=UTC)
    ours = [job for job in found if job.ours]
    ours.sort(key=lambda job: job.created or oldest, reverse=True)
    finished = [job.name for job in ours if not job.running][:RECENT]
    return [_timed(cloud, job) for job in ours if job.running or job.name in finished]


def _timed(cloud: Cloud, job: Job) -> Job:
    """The job with the times that run history knows; the job's own record has none."""
    try:
        details = history.details(cloud, job.name)
    except NotFound:
        return job
    return replace(job, started=details.started, ended=details.ended)


def read_job(resource: Mapping[str, Any]) -> Job:
    """A job of its JSON."""
    properties = resource["properties"]
    on = machine(properties)
    studio = ((properties.get("services") or {}).get("Studio") or {}).get("endpoint") or ""
    return Job(
        name=resource["name"],
        status=properties.get("status") or "",
        tags=properties.get("tags") or {},
        compute=on.compute.rpartition("/computes/")[2],
        instance_type=on.instance,
        nodes=on.nodes,
        spot=on.spot,
        limit=duration((properties.get("limits") or {}).get("timeout") or ""),
        created=moment((resource.get("systemData") or {}).get("createdAt") or ""),
        started=None,
        ended=None,
        studio=studio,
    )


def read_compute(resource: Mapping[str, Any]) -> Compute:
    """A compute of its JSON."""
    outer = resource["properties"]
    inner = outer.get("properties") or {}
    scale = inner.get("scaleSettings") or {}
    kind = outer.get("computeType") or ""
    nodes = int(inner.get("currentNodeCount") or 0)
    if kind == "ComputeInstance":
        nodes = 0 if inner.get("state") in ("Stopped", "Deleting") else 1
    return Compute(
        name=resource["name"],
        kind=kind,
        state=outer.get("provisioningState") or "",
        size=inner.get("vmSize") or "",
        spot=str(inner.get("vmPriority") or "").lower() == "lowpriority",
        nodes=nodes,
        most=int(scale.get("maxNodeCount") or nodes),
        least=int(scale.get("minNodeCount") or 0),
        tags=resource.get("tags") or {},
    )


def duration(text: str) -> timedelta | None:
    """An ISO 8601 duration of days, hours, minutes and seconds, as Azure writes limits."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", text)
    if not text or not found:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)

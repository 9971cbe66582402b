"""What a recipe would do on Azure, and what that can cost, before anything is done.

    plan = build(recipe, path, cloud)      # cloud=None: without logging in
    planned(plan)                          # as all routes have it: rows, JSON, costs

The plan of a command job. Every choice that the recipe leaves open stands there with its reason. It
changes nothing.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure import names, prices, specs
from scripts.azure import quota as quotas
from scripts.azure.prices import Instance
from scripts.azure.quota import Quota
from scripts.azure.routes import Cost, Planned
from scripts.azure.texts import hours, money
from scripts.azure.timeouts import Timeouts
from scripts.runtime import Choice
from scripts.settings import environment, relative
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud
    from scripts.azure.images import Role

NOT_BUILT = "not built yet"
NOT_PUSHED = "not pushed yet"
NOT_ASKED = "the registry was not asked (offline)"
SERVERLESS = "serverless"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image that would run."""

    local: str
    """As the engine here calls it."""
    id: str
    """The local image's id; empty where it is not built."""
    device: Choice
    """`cuda` or `cpu`, by the machine."""
    reference: str
    """By digest in the workspace's registry; empty where it is not there."""
    state: str
    """The reference, or why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The job."""

    instance: Instance
    nodes: int
    where: str
    max_hours: float
    image: Image
    ceiling: float | None
    """The most that the job can cost, in dollars; None where the price is not known."""
    likely_spot: float | None
    """The same at the known spot price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The endpoint."""

    instance: Instance
    count: int
    image: Image
    per_hour: float | None
    """Dollars from the deployment's creation until it is deleted; nothing ends it by itself."""
    expires_hours: float
    until_expiry: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An automatic choice."""

    what: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it."""

    recipe: str
    path: str
    workspace: str
    """Empty without logging in."""
    location: str
    label: str
    """`rehearsed, not Azure` there."""
    train: Training
    serve: Serving
    job: str
    """Base name of the job; empty where its image or data is not known yet."""
    endpoint: str
    model: str
    quota: tuple[Quota, ...]
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]


def ceiling(recipe: Recipe) -> float:
    """Dollars that the job can cost at most; UsageError where the price or the limit is missing."""
    specs.timeout_seconds(recipe)
    cloud = recipe.cloud
    return cloud.nodes * cloud.max_hours * prices.find(cloud.instance_type).price()


def build(
    recipe: Recipe,
    path: Path,
    cloud: "Cloud | None" = None,
    *,
    job: str = "",
    references: Mapping[str, str] | None = None,
) -> Plan:
    """The plan; with `cloud` also what only the workspace knows.

    `job` and `references` (by role) are what the caller has found out already. UsageError where
    a name breaks Azure's rules, the machine is not known, or the job has no time limit.
    """
    seconds = specs.timeout_seconds(recipe)
    settings = recipe.cloud
    table = prices.table()
    trains, serves = (
        table.find(name) for name in (settings.instance_type, settings.serve_instance_type)
    )
    endpoint = names.endpoint_name(recipe, cloud.workspace.guid if cloud else "")
    if settings.compute:
        names.check_compute(settings.compute)
    if job:
        names.check_job(job)
    given = references or {}
    train = Training(
        instance=trains,
        nodes=settings.nodes,
        where=f"cluster {settings.compute}" if settings.compute else SERVERLESS,
        max_hours=seconds / 3600,
        image=_image("train", recipe, cloud, given.get("train", "")),
        ceiling=_times(trains.per_hour, settings.nodes * settings.max_hours),
        likely_spot=_times(trains.spot_per_hour, settings.nodes * settings.max_hours)
        if settings.spot
        else None,
    )
    per_hour = _times(serves.per_hour, settings.serve_instances)
    serve = Serving(
        instance=serves,
        count=settings.serve_instances,
        image=_image("serve", recipe, cloud, given.get("serve", "")),
        per_hour=per_hour,
        expires_hours=settings.expires_hours,
        until_expiry=_times(per_hour, settings.expires_hours),
    )
    return Plan(
        recipe=recipe.name,
        path=relative(path.resolve()),
        workspace=cloud.workspace.name if cloud else "",
        location=cloud.workspace.location if cloud else "",
        label=cloud.label() if cloud else "",
        train=train,
        serve=serve,
        job=job or _job(recipe, train.image.reference, cloud),
        endpoint=endpoint if cloud or settings.endpoint else "",
        model=names.model_name(recipe),
        quota=quotas.needed(settings, trains, serves, cloud),
        decisions=tuple(_decisions(recipe, train, serve)),
        notes=tuple(_notes(table, train, serve, cloud, settings.spot)),
    )


def rows(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The plan for people."""
    train, serve = plan.train, plan.serve
    where = f"{plan.workspace} in {plan.location}" if plan.workspace else "not asked (offline)"
    found = [
        ("recipe", f"{plan.recipe} ({plan.path})"),
        ("workspace", f"{where}; {plan.label}" if plan.label else where),
        ("job", plan.job or "named when its image and data are known"),
        ("", f"{train.nodes} x {_machine(train.instance)}, {train.where}"),
        ("", f"image {train.image.local}: {train.image.state}"),
        ("", f"ends after {hours(train.max_hours)} at the latest"),
        ("", _ceiling_line(train)),
        ("model", f"{plan.model}, a new version each time"),
        ("endpoint", plan.endpoint or f"{names.slug(plan.recipe)}-… (by the workspace)"),
        ("", f"{serve.count} x {_machine(serve.instance)}"),
        ("", f"image {serve.image.local}: {serve.image.state}"),
        ("", _serving_line(serve)),
    ]
    found += [("quota", quotas.line(quota)) for quota in plan.quota]
    found += [(d.what, f"{d.value} ({d.reason})") for d in plan.decisions]
    found += [("note", note) for note in plan.notes]
    return tuple(found)


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs; dollars and hours."""
    values = dataclasses.asdict(plan)
    for quota, row in zip(plan.quota, values["quota"], strict=True):
        row["enough"] = quota.enough
    return values


def planned(plan: Plan) -> Planned:
    """The plan as the verbs take it."""
    train, serve = plan.train, plan.serve
    return Planned(
        rows=rows(plan),
        values=as_json(plan),
        train=Cost(
            line=f"{_ceiling_line(train)}, on {train.nodes} x {train.instance.name}",
            warnings=_short(plan, "train"),
            unknown=train.instance.unknown_price if train.instance.per_hour is None else "",
        ),
        deploy=Cost(
            line=f"{_serving_line(serve)}, on {serve.count} x {serve.instance.name}",
            warnings=_short(plan, "deploy"),
            unknown=serve.instance.unknown_price if serve.instance.per_hour is None else "",
        ),
        label=plan.label,
    )


def _short(plan: Plan, what: str) -> tuple[str, ...]:
    """Which quota is known to be too small for it."""
    return tuple(
        f"quota:  {quotas.line(quota)}"
        for quota in plan.quota
        if quota.what == what and quota.enough is False
    )


def _job(recipe: Recipe, image: str, cloud: "Cloud | None") -> str:
    """The job's name, which is known where its image, base model and rows are."""
    from scripts.azure import assets

    if not image or not cloud:
        return ""
    return assets.with_staged(cloud, assets.gather(recipe)).job_name(image)


def _image(role: "Role", recipe: Recipe, cloud: "Cloud | None", reference: str) -> Image:
    """What stands on this machine and in the registry; builds and pushes nothing."""
    from scripts.azure import images

    device = images.device_for(recipe, cloud, role) if cloud else _device(role, recipe)
    rehearsal = cloud.workspace.rehearsal if cloud else ""
    found = images.find(role, device.value, environment(), rehearsal)
    missing = NOT_BUILT
    if found:
        missing = NOT_PUSHED if cloud else NOT_ASKED
        if cloud and not reference:
            reference = images.reference(cloud, found)
    return Image(
        local=found.tag if found else f"homeport-{role}:{device.value}",
        id=found.id if found else "",
        device=device,
        reference=reference,
        state=reference or missing,
    )


def _device(role: str, recipe: Recipe) -> Choice:
    """`cuda` or `cpu` by the machine, with the reason."""
    cloud = recipe.cloud
    instance = prices.find(cloud.instance_type if role == "train" else cloud.serve_instance_type)
    if instance.gpus:
        return Choice("cuda", f"{instance.name} has {instance.gpus} x {instance.gpu}")
    return Choice("cpu", f"{instance.name} has no GPU")


def _decisions(recipe: Recipe, train: Training, serve: Serving) -> Iterator[Decision]:
    cloud, gpus, limits = recipe.cloud, train.instance.gpus, Timeouts()
    yield Decision(what="route", value="own command job", reason=f"cloud.route is {cloud.route}")
    yield _on("train on", train.image.device)
    if serve.image.device != train.image.device:
        yield _on("serve on", serve.image.device)
    each = "one per GPU" if gpus else "one on a CPU"
    yield Decision(what="processes", value=f"{max(1, gpus)} on each machine", reason=each)
    if cloud.compute:
        value, reason = "a cluster with 0 nodes at rest", f"cloud.compute is {cloud.compute}"
    else:
        value, reason = SERVERLESS, "cloud.compute is empty"
    yield Decision(what="machines", value=value, reason=reason)
    if cloud.spot:
        reason = "cloud.spot is true; when Azure takes one away, the job goes on on another"
        yield Decision(what="priority", value="low", reason=reason)
    yield Decision(
        what="timeouts",
        value=f"{limits.generation_seconds:g} s generation, "
        f"{limits.request_timeout_ms / 1000:g} s request, {limits.client_seconds:g} s client",
        reason="each longer than the one before; Azure takes at most 180 s a request",
    )


def _on(what: str, device: Choice) -> Decision:
    return Decision(what=what, value=device.value, reason=device.reason)


def _notes(
    table: prices.Table, train: Training, serve: Serving, cloud: "Cloud | None", spot: bool
) -> Iterator[str]:
    machines = tuple(dict.fromkeys((train.instance, serve.instance)))
    for instance in machines:
        if instance.per_hour is None:
            yield instance.unknown_price
        elif not instance.checked:
            yield f"the price of {instance.name} is not checked: {instance.source}"
    if spot and train.likely_spot is None:
        yield f"the low-priority price of {train.instance.name} is not known: the full one is used"
    dates = sorted({i.as_of for i in machines if i.per_hour is not None})
    yield (
        f"prices: {table.region}, list price without tax, looked up {', '.join(dates) or 'never'}; "
        f"their source stands in azure/prices.yml, yours go into {prices.OWN}"
    )
    if cloud and not cloud.workspace.rehearsal and cloud.workspace.location != table.region:
        yield f"the workspace is in {cloud.workspace.location}, where prices may differ"
    yield (
        "a machine bills from its allocation: pulling the image comes on top of the job's time"
        + (", and so does a cluster's idle time" if train.where != SERVERLESS else "")
    )
    yield "images, rows, checkpoints and models bill as storage until they are deleted"
    if gpu := train.instance.gpu:
        memory = f"{train.instance.gpu_memory_gib:g} GiB"
        yield f"whether it fits into {memory} and how long it takes: make local-check GPU={gpu}"


def _ceiling_line(train: Training) -> str:
    if train.ceiling is None:
        return "costs at most: not known (see the note)"
    each = f"{train.nodes} x {hours(train.max_hours)} x ${train.instance.per_hour:,.4g}"
    line = f"costs at most {money(train.ceiling)} ({each})"
    spot = train.likely_spot
    return line if spot is None else f"{line}; about {money(spot)} at the spot price"


def _serving_line(serve: Serving) -> str:
    if serve.per_hour is None or serve.until_expiry is None:
        return "costs per hour: not known (see the note)"
    return (
        f"costs {money(serve.per_hour)} per hour until `make cloud-down`; "
        f"{money(serve.until_expiry)} in the {hours(serve.expires_hours)} to its expiry tag"
    )


def _machine(instance: Instance) -> str:
    gpus = f"{instance.gpus} x {instance.gpu} {instance.gpu_memory_gib:g} GiB, "
    return (
        f"{instance.name} ({gpus if instance.gpus else ''}{instance.cores} cores, "
        f"{instance.memory_gib:g} GiB)"
    )


def _times(price: float | None, amount: float) -> float | None:
    return None if price is None else round(price * amount, 4)

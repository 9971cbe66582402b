"""Cores that a recipe needs on Azure, against those that the subscription has left in the region.

    for quota in needed(recipe.cloud, trains, serves, cloud): print(line(quota))

Azure refuses a job or a deployment beyond its quota only after minutes of waiting.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scripts.azure.prices import Instance
from scripts.errors import CloudError
from train.recipe import CloudConfig

if TYPE_CHECKING:
    from scripts.azure.client import Cloud

USAGE_API = "2023-08-01-preview"
LOW_PRIORITY = "low-priority cores of all families"
MORE = "ask for more in the studio (https://ml.azure.com/quota), or choose another machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Cores that are needed, and what there is."""

    what: Literal["train", "deploy"]
    family: str
    cores: int
    rule: str
    """How the cores were reckoned."""
    limit: int | None = None
    used: int | None = None
    unknown: str = ""
    """Why limit and use are not known."""

    @property
    def enough(self) -> bool | None:
        """None where it is not known."""
        if self.limit is None or self.used is None:
            return None
        return self.cores <= self.limit - self.used


def needed(
    settings: CloudConfig, trains: Instance, serves: Instance, cloud: "Cloud | None"
) -> tuple[Quota, ...]:
    """What the job and the endpoint need; without `cloud`, limits are not known."""
    usages: list[Any] = []
    unknown = "not asked (offline)"
    if cloud:
        try:
            usages, unknown = _usages(cloud), "Azure lists no such family here"
        except CloudError as error:  # a role that may deploy need not be one that may ask this
            unknown = f"Azure does not say: {error}"
    return tuple(_with_usage(quota, usages, unknown) for quota in _wanted(settings, trains, serves))


def line(quota: Quota) -> str:
    """One sentence for people."""
    need = f"{quota.what} needs {quota.cores} of {quota.family} ({quota.rule})"
    if quota.limit is None or quota.used is None:
        return f"{need}; {quota.unknown}"
    free = quota.limit - quota.used
    if quota.enough:
        return f"{need}; {free} of {quota.limit} are free"
    return f"{need}, but only {free} of {quota.limit} are free: {MORE}"


def _wanted(settings: CloudConfig, trains: Instance, serves: Instance) -> Iterator[Quota]:
    yield Quota(
        what="train",
        family=LOW_PRIORITY if settings.spot else trains.family,
        cores=settings.nodes * trains.cores,
        rule=f"{settings.nodes} x {trains.cores} cores",
    )
    reserve = ", and a fifth for upgrades, rounded up" if serves.quota_checked else ""
    yield Quota(
        what="deploy",
        family=serves.family,
        cores=serves.serving_cores(settings.serve_instances),
        rule=f"{settings.serve_instances} x {serves.cores} cores{reserve}",
    )


def _usages(cloud: "Cloud") -> list[Any]:
    """Cores in use and their limits, by family (Azure ML, Usages_List)."""
    place = cloud.workspace
    path = (
        f"/subscriptions/{place.subscription}/providers/Microsoft.MachineLearningServices"
        f"/locations/{place.location}/usages"
    )
    return cloud.rest.all(path, USAGE_API)


def _with_usage(quota: Quota, usages: list[Any], unknown: str) -> Quota:
    """With the widest entry of its family, since workspaces may have shares of it."""
    found = [usage for usage in usages if _is_of(usage, quota.family)]
    if not found:
        return _known(quota, unknown=unknown)
    widest = max(found, key=lambda usage: usage["limit"])
    return _known(quota, limit=widest["limit"], used=widest["currentValue"])


def _known(quota: Quota, **found: Any) -> Quota:
    return Quota(what=quota.what, family=quota.family, cores=quota.cores, rule=quota.rule, **found)


def _is_of(usage: Any, family: str) -> bool:
    """Whether the entry is of the family; Azure writes names with and without spaces and capitals.

    `standardDSv2Family` and `Standard DSv2 Family Cluster Dedicated vCPUs` are the same.
    """
    called = [_plain(usage["name"].get(key) or "") for key in ("value", "localizedValue")]
    low_priority = any("lowpriority" in name for name in called)
    if family == LOW_PRIORITY or low_priority:
        return low_priority and family == LOW_PRIORITY
    return any(name.startswith(_plain(family)) for name in called)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

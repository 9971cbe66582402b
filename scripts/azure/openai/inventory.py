"""What stands, runs and lies in the Azure OpenAI resources of the workspace's resource group.

    for hosted in survey(cloud): …       # what bills by the hour
    for job in running(cloud): …         # what is being trained
    for file in files(cloud): …          # the rows that were uploaded

A deployment of a fine-tuned model bills every hour from its creation to its deletion, whether it is
asked or not, so `make cloud-status` lists it and `make cloud-down` deletes what is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from scripts.azure.retry import Refused

if TYPE_CHECKING:
    from openai import OpenAI

    from scripts.azure.client import Cloud
    from scripts.azure.openai.accounts import Account
    from scripts.azure.openai.jobs import Job
    from train.recipe import Recipe

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """A deployment of an Azure OpenAI resource."""

    name: str
    """`resource/deployment`."""
    model: str
    sku: str
    ours: bool
    since: datetime | None
    per_hour: float | None
    """US dollars for standing there; 0 where only tokens are paid, None where it is not known."""
    resource: str
    """ARM id of the resource."""
    tenant: str = ""
    """Of the resource, where it is not the login's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A fine-tuning job that has not ended."""

    job: str
    resource: str
    """ARM id of the resource."""
    model: str
    status: str
    ours: bool
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """An uploaded file of rows."""

    id: str
    name: str
    bytes: int
    resource: str
    """ARM id of the resource."""
    ours: bool


def survey(cloud: "Cloud", recipe: "Recipe | None" = None) -> tuple[Hosted, ...]:
    """The deployments of the workspace's resource group, and what is ours elsewhere.

    Elsewhere is the rest of the subscription and, with `recipe`, the resource that its
    cloud.openai.deploy_to names. None where there is no such resource.
    """
    from scripts.azure import names
    from scripts.azure.openai import accounts, deployments
    from scripts.azure.openai.prices import hosting

    group = cloud.workspace.resource_group.casefold()
    found: list[Hosted] = []
    places = accounts.everywhere(cloud)
    base = names.endpoint_name(recipe, cloud.workspace.guid) if recipe else ""
    abroad = _abroad(cloud, recipe)
    if abroad and abroad.id.casefold() not in {place.id.casefold() for place in places}:
        places.append(abroad)
    for account in places:
        for each in _quietly(lambda account=account: deployments.listed(account)):  # type: ignore[misc]
            # across tenants a deployment is made without tags, so its name has to say it
            own = each.ours or (account is abroad and each.name.startswith(f"{base}-"))
            if not own and account.group.casefold() != group:
                continue
            found.append(
                Hosted(
                    name=f"{account.name}/{each.name}",
                    model=each.model,
                    sku=each.sku,
                    ours=own,
                    since=each.created,
                    per_hour=hosting(each.sku).price if each.tuned else _base_price(each.sku),
                    resource=account.id,
                    tenant=account.tenant,
                )
            )
    return tuple(found)


def _abroad(cloud: "Cloud", recipe: "Recipe | None") -> "Account | None":
    from scripts.azure.openai import accounts

    if recipe is None or recipe.cloud.route != "azure_openai" or not recipe.cloud.openai.deploy_to:
        return None
    return accounts.target(cloud, recipe)


def _base_price(sku: str) -> float | None:
    """A base model bills by its tokens alone, unless its throughput is bought by the hour."""
    return None if "provisioned" in sku.casefold() else 0.0


def _quietly(listing: "Callable[[], list[T]]") -> "list[T]":
    """The list; empty where it may not be seen, which is no reason to show nothing at all."""
    try:
        return listing()
    except Refused:
        return []


def running(cloud: "Cloud") -> tuple[Running, ...]:
    """The fine-tuning jobs of the resource group that have not ended."""
    from scripts.azure.openai import accounts
    from scripts.azure.openai import files as stored
    from scripts.azure.openai.client import connect

    found: list[Running] = []
    for account in accounts.in_group(cloud):
        with connect(account) as service:
            open_ones = [job for job in _jobs(service) if not job.over]
            if not open_ones:
                continue
            own = {file.id for file in stored.listed(service) if file.ours}
        found += [
            Running(
                job=job.id,
                resource=account.id,
                model=job.model,
                status=job.status,
                ours=job.training_file in own,
                since=datetime.fromtimestamp(job.created, UTC),
            )
            for job in open_ones
        ]
    return tuple(found)


def _jobs(service: "OpenAI") -> "list[Job]":
    from scripts.azure.openai import jobs

    return _quietly(lambda: jobs.listed(service))


def files(cloud: "Cloud") -> tuple[StoredFile, ...]:
    """The files of rows of the resource group."""
    from scripts.azure.openai import accounts
    from scripts.azure.openai import files as stored
    from scripts.azure.openai.client import connect

    found: list[StoredFile] = []
    for account in accounts.in_group(cloud):
        with connect(account) as service:
            there = _quietly(lambda service=service: stored.listed(service))  # type: ignore[misc]
        found += [
            StoredFile(
                id=file.id, name=file.name, bytes=file.bytes, resource=account.id, ours=file.ours
            )
            for file in there
        ]
    return tuple(found)


def delete(cloud: "Cloud", hosted: Hosted) -> None:
    """Delete the deployment and wait until it is gone; its model stays and can be deployed anew."""
    from scripts.azure.openai import accounts, deployments

    account = accounts.read(cloud, hosted.resource, hosted.tenant, key="the resource")
    deployments.delete(account, hosted.name.partition("/")[2])


def cancel(cloud: "Cloud", job: Running) -> None:
    """Cancel the job and wait until it has ended."""
    from scripts.azure.openai import accounts, jobs
    from scripts.azure.openai.client import connect

    with connect(accounts.read(cloud, job.resource, key="the resource")) as service:
        jobs.cancel(service, job.job)


def delete_file(cloud: "Cloud", file: StoredFile) -> None:
    """Delete the file."""
    from scripts.azure.openai import accounts
    from scripts.azure.openai import files as stored
    from scripts.azure.openai.client import connect

    with connect(accounts.read(cloud, file.resource, key="the resource")) as service:
        stored.delete(service, file.id)

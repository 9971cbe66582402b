"""What stands, runs and lies in the Azure OpenAI resources of the workspace's resource group.

    for hosted in survey(cloud): …       # what bills by the hour
    for job in running(cloud): …         # what is being trained
    for file in files(cloud): …          # the rows that were uploaded

A deployment of a fine-tuned model bills every hour from its creation to its deletion, whether it is
asked or not, so `make cloud-status` lists it and `make cloud-down` deletes what is ours.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.azure.client import Cloud


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


def survey(cloud: "Cloud") -> tuple[Hosted, ...]:
    """The deployments there, none where the resource group has no such resource."""
    raise NotImplementedError


def running(cloud: "Cloud") -> tuple[Running, ...]:
    """The fine-tuning jobs that have not ended."""
    raise NotImplementedError


def files(cloud: "Cloud") -> tuple[StoredFile, ...]:
    """The files of rows that lie there."""
    raise NotImplementedError


def delete(cloud: "Cloud", hosted: Hosted) -> None:
    """Delete the deployment and wait until it is gone; its model stays and can be deployed anew."""
    raise NotImplementedError


def cancel(cloud: "Cloud", job: Running) -> None:
    """Cancel the job and wait until it has ended."""
    raise NotImplementedError


def delete_file(cloud: "Cloud", file: StoredFile) -> None:
    """Delete the file."""
    raise NotImplementedError

"""The one local Azure: its settings, and the parts that all routes share."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from emulator.faults import Faults
from emulator.journal import Journal
from emulator.nodes import Nodes
from emulator.operations import Operations
from emulator.storage import Storage
from emulator.store import Store

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
TENANT = "99999999-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Names of the one workspace and what belongs to it."""

    folder: Path
    """Everything that this Azure writes: certificates, storage, jobs, journal."""
    mode: Literal["docker", "host"] = "host"
    """Where jobs and deployments run; the workspace's tag `homeport-rehearsal` says it."""
    subscription: str = SUBSCRIPTION
    tenant: str = TENANT
    resource_group: str = "rehearsal"
    workspace: str = "homeport"
    location: str = "eastus"
    account: str = "homeportrehearsal"
    """Storage account; also the name of the container registry and the key vault."""
    guid: str = "11111111-2222-3333-4444-555555555555"
    """The workspace's id, and the object id of its identity."""

    @property
    def group_id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"

    @property
    def workspace_id(self) -> str:
        """ARM id of the workspace."""
        return (
            f"{self.group_id}/providers/Microsoft.MachineLearningServices"
            f"/workspaces/{self.workspace}"
        )

    @property
    def api(self) -> str:
        return f"https://{self.location}.api.azureml.ms"

    @property
    def blob_container(self) -> str:
        """Container of the default datastore, workspaceblobstore."""
        return f"azureml-blobstore-{self.guid}"

    @property
    def artifact_container(self) -> str:
        """Container of workspaceartifactstore: logs and `./outputs` of jobs."""
        return "azureml"


@dataclass(slots=True, kw_only=True)
class Azure:
    """What a module of routes works on."""

    settings: Settings
    store: Store
    operations: Operations
    storage: Storage
    journal: Journal
    faults: Faults
    nodes: Nodes
    secrets: dict[str, str] = field(default_factory=dict)
    """What is in the key vault, by the secret's name."""

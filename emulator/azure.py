"""The one local Azure: its settings, and the parts that all routes share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from emulator.faults import Faults
from emulator.journal import Journal
from emulator.nodes import Nodes
from emulator.operations import Operations
from emulator.storage import Storage
from emulator.store import Store
from emulator.tokens import Tokens

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
    registry: str = ""
    """`http://HOST:PORT` of the registry that holds the images; empty where there is none."""
    train_image: str = "train"
    """What trains where Azure brings the program itself: an image of this engine (docker mode)."""
    serve_image: str = "serve"
    """What serves a model that is deployed without an image, likewise."""
    cache_folder: Path | None = None
    """Where the base of what is trained is kept; None is `cache` below `folder`."""
    hurry: float = 1.0
    """Initial delays of probes are multiplied by this: 1 as on Azure, less only in tests."""

    @property
    def cache(self) -> Path:
        """What may outlive this Azure."""
        return self.cache_folder or self.folder / "cache"

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
    def login_server(self) -> str:
        """Host of the container registry."""
        return f"{self.account}.azurecr.io"

    @property
    def vault(self) -> str:
        """Host of the key vault."""
        return f"{self.account}.vault.azure.net"

    @property
    def storage_id(self) -> str:
        return f"{self.group_id}/providers/Microsoft.Storage/storageAccounts/{self.account}"

    @property
    def registry_id(self) -> str:
        return f"{self.group_id}/providers/Microsoft.ContainerRegistry/registries/{self.account}"

    @property
    def vault_id(self) -> str:
        return f"{self.group_id}/providers/Microsoft.KeyVault/vaults/{self.account}"

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
    tokens: Tokens
    secrets: dict[str, str] = field(default_factory=dict)
    """What is in the key vault, by the secret's name."""
    node_environment: Mapping[str, str] = field(default_factory=dict)
    """Variables by which jobs and deployments reach this Azure and their managed identity; paths in
    it are as they see them."""

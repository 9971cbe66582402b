"""The one client of the cloud verbs: who asks, which workspace, and REST where the SDK lacks a call.

    cloud = connect()

Which workspace: AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_WORKSPACE, from the environment
or .env; else the config.json that Azure ML's studio offers for download, in this folder. Who: what
DefaultAzureCredential finds (environment, managed identity, az login, …), then a browser.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

REHEARSED = "rehearsed, not Azure"
"""Stands in every result that came of the local Azure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """What the verbs need to know about the workspace."""

    id: str
    """ARM id."""
    name: str
    resource_group: str
    subscription: str
    location: str
    guid: str
    api: str
    """`https://REGION.api.azureml.ms`: run history and assets."""
    registry_id: str
    """ARM id of its container registry; empty where none was made yet."""
    key_vault_id: str
    storage_id: str
    principal_id: str
    """Object id of the workspace's own identity; empty where it has none."""
    rehearsal: Literal["", "docker", "host"]
    """The local Azure's tag `homeport-rehearsal`: where its jobs run; empty on Azure."""


class Rest:
    """Azure's REST API with the credential's token, for the calls that the SDK lacks.

    Retries 429, 5xx and broken connections with backoff, honouring Retry-After; a POST only where
    `again` says that doing it twice is the same as once. Other statuses raise CloudError with the
    service's own sentence; 404 raises NotFound.
    """

    def get(self, path: str, api_version: str = "", *, scope: str = "", **query: str) -> Any: ...

    def put(self, path: str, body: Any, api_version: str = "", *, scope: str = "") -> Any: ...

    def post(
        self, path: str, body: Any, api_version: str = "", *, scope: str = "", again: bool = True
    ) -> Any: ...

    def delete(self, path: str, api_version: str = "", *, scope: str = "") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """The workspace, and the means to speak with it."""

    ml: "MLClient"
    credential: "TokenCredential"
    workspace: Workspace
    rest: Rest

    def label(self) -> str:
        """REHEARSED on the local Azure, empty on Azure."""
        return REHEARSED if self.workspace.rehearsal else ""


def connect() -> Cloud:
    """Find the workspace and log in, saying both; UsageError or CloudError otherwise."""
    raise NotImplementedError

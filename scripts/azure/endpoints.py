"""Online endpoints and their deployments: what is there, and the calls that change it.

    find(cloud, "hp-tiny-ja-1a2b")    one endpoint with its deployments, or None
    every(cloud)                      all of the workspace

Reads are REST, because the SDK's entities leave out when a thing was made; changes go through the
SDK. In what order things are changed is rollout.py's; what they cost is billing.py's.
"""

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from scripts.azure import retry
from scripts.azure.client import Cloud
from scripts.azure.retry import NotFound, Refused
from scripts.azure.tags import EXPIRES, IMAGE, ours
from scripts.azure.texts import moment
from scripts.console import say
from scripts.errors import CloudError, UsageError

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint

ENDPOINTS_API = "2022-02-01-preview"
DEPLOYMENTS_API = "2023-04-01-preview"
"""The versions that azure-ai-ml itself asks for these two."""

CONTAINERS: tuple[Literal["storage-initializer", "inference-server"], ...] = (
    "storage-initializer",
    "inference-server",
)
SCORE = "/score"
"""Where a scoring URI ends; the container's other paths lie beside it."""
LOG_LINES = 60
POLL_SECONDS = 5.0
PROGRESS_SECONDS = 30.0
AFTER_FAILURE = "Next: make cloud-status, then the same again."
CONFLICT = 409
BUSY_SECONDS = 1800.0
"""Longest wait for an operation on the same endpoint to end; Azure gives a deployment 20 min."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment; it bills from `created` until it is deleted, with traffic or without."""

    name: str
    endpoint: str
    state: str
    """Creating, Updating, Scaling, Succeeded, Failed, Canceled or Deleting."""
    model: str
    """`name:version`."""
    instance_type: str
    instances: int
    traffic: int
    """Percent of the endpoint's requests."""
    tags: Mapping[str, str]
    created: datetime | None

    @property
    def image(self) -> str:
        """Digest of the image, from our tag; empty where we did not make it."""
        return self.tags.get(IMAGE, "")

    @property
    def ours(self) -> bool:
        return ours(self.tags)

    @property
    def in_progress(self) -> bool:
        return self.state in ("Creating", "Updating", "Scaling", "Deleting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint; by itself it bills nothing, its deployments do."""

    name: str
    state: str
    uri: str
    """Scoring URI, which ends in /score; empty until it is made."""
    tags: Mapping[str, str]
    created: datetime | None
    deployments: tuple[Deployment, ...]

    @property
    def ours(self) -> bool:
        return ours(self.tags)

    @property
    def expires(self) -> datetime | None:
        return moment(self.tags.get(EXPIRES, ""))

    @property
    def traffic(self) -> dict[str, int]:
        """Percent by deployment, those with none left out."""
        return {d.name: d.traffic for d in self.deployments if d.traffic}

    def deployment(self, name: str) -> Deployment | None:
        return next((d for d in self.deployments if d.name == name), None)


def address(uri: str, path: str = SCORE) -> str:
    """The scoring URI with `path` for its `/score`."""
    return uri.removesuffix(SCORE) + path


def asset(arm_id: str) -> str:
    """`name:version` of an asset's ARM id or azureml: reference."""
    parts = arm_id.rstrip("/").split("/")
    if len(parts) > 3 and parts[-2] == "versions":
        return f"{parts[-3]}:{parts[-1]}"
    return arm_id.removeprefix("azureml:")


def read(resource: Mapping[str, Any], deployments: Sequence[Mapping[str, Any]]) -> Endpoint:
    """An endpoint of its two JSON answers."""
    properties = resource["properties"]
    traffic = properties.get("traffic") or {}
    return Endpoint(
        name=resource["name"],
        state=properties.get("provisioningState") or "",
        uri=properties.get("scoringUri") or "",
        tags=resource.get("tags") or {},
        created=moment((resource.get("systemData") or {}).get("createdAt") or ""),
        deployments=tuple(
            _deployment(item, resource["name"], int(traffic.get(item["name"], 0)))
            for item in deployments
        ),
    )


def _deployment(resource: Mapping[str, Any], endpoint: str, traffic: int) -> Deployment:
    properties = resource["properties"]
    return Deployment(
        name=resource["name"],
        endpoint=endpoint,
        state=properties.get("provisioningState") or "",
        model=asset(properties.get("model") or ""),
        instance_type=properties.get("instanceType") or "",
        instances=int((resource.get("sku") or {}).get("capacity") or 1),
        traffic=traffic,
        tags=resource.get("tags") or {},
        created=moment((resource.get("systemData") or {}).get("createdAt") or ""),
    )


def _path(cloud: Cloud, endpoint: str = "") -> str:
    base = f"{cloud.workspace.id}/onlineEndpoints"
    return f"{base}/{endpoint}" if endpoint else base


def _deployments(cloud: Cloud, endpoint: str) -> list[Mapping[str, Any]]:
    return cloud.rest.all(f"{_path(cloud, endpoint)}/deployments", DEPLOYMENTS_API)


def find(cloud: Cloud, name: str) -> Endpoint | None:
    """The endpoint with its deployments, or None where it is not there."""
    try:
        resource = cloud.rest.get(_path(cloud, name), ENDPOINTS_API)
        return read(resource, _deployments(cloud, name))
    except NotFound:
        return None


def need(cloud: Cloud, name: str) -> Endpoint:
    """The endpoint; UsageError where it is not there."""
    if found := find(cloud, name):
        return found
    raise UsageError(
        f"there is no endpoint {name} in {cloud.workspace.name}: make cloud-status lists what "
        "there is; next: make cloud-deploy"
    )


def every(cloud: Cloud) -> list[Endpoint]:
    """All endpoints of the workspace, by name."""
    found = []
    for resource in cloud.rest.all(_path(cloud), ENDPOINTS_API):
        with contextlib.suppress(NotFound):  # deleted since the list was made
            found.append(read(resource, _deployments(cloud, resource["name"])))
    return sorted(found, key=lambda endpoint: endpoint.name)


def key(cloud: Cloud, name: str) -> str:
    """The endpoint's primary key; CloudError where it takes tokens, or we may not see it."""
    found = retry.call(
        f"read the key of endpoint {name}", lambda: cloud.ml.online_endpoints.get_keys(name)
    )
    value = getattr(found, "primary_key", None)
    if not value:
        raise CloudError(
            f"endpoint {name} takes tokens, not keys; next: make cloud-down ENDPOINT={name}"
        )
    return str(value)


def create(cloud: Cloud, spec: "ManagedOnlineEndpoint") -> None:
    """Make the endpoint and wait for it."""
    begin = cloud.ml.online_endpoints.begin_create_or_update
    settle(f"make endpoint {spec.name}", lambda: begin(spec))


def start_deployment(cloud: Cloud, spec: "ManagedOnlineDeployment") -> Any:
    """Ask for the deployment; the poller of its making. Refused 409 where the endpoint is busy."""
    begin = cloud.ml.online_deployments.begin_create_or_update
    with quiet():
        return retry.call(f"make deployment {spec.name}", lambda: begin(spec))


def wait(what: str, poller: Any, progress: Callable[[], None]) -> None:
    """Wait for the operation's end, with `progress` every half minute.

    Refused with the service's words where it failed; CloudError where the looking on failed.
    """
    from azure.core.exceptions import AzureError

    told = time.monotonic()
    with quiet():
        try:
            while not poller.done():
                poller.wait(POLL_SECONDS)
                if time.monotonic() - told >= PROGRESS_SECONDS and not poller.done():
                    told = time.monotonic()
                    progress()
            poller.result()
        except AzureError as error:
            raise (retry.translate(what, error) or CloudError(f"could not {what}.")) from error


def set_traffic(
    cloud: Cloud, endpoint: str, traffic: Mapping[str, int], tags: Mapping[str, str]
) -> None:
    """Split the requests as said, and set `tags` besides those that the endpoint has."""

    def update() -> Any:
        # read anew at each try: the update sends the whole endpoint, tags of others included
        entity = cloud.ml.online_endpoints.get(endpoint)
        entity.traffic = dict(traffic)
        entity.tags = {**(entity.tags or {}), **tags}
        return cloud.ml.online_endpoints.begin_create_or_update(entity)

    settle(f"set the traffic of endpoint {endpoint}", update)


def delete_deployment(cloud: Cloud, endpoint: str, name: str) -> None:
    """Delete a deployment that takes no traffic, and wait until it is gone."""
    begin = cloud.ml.online_deployments.begin_delete
    settle(f"delete deployment {name}", lambda: begin(name, endpoint_name=endpoint), gone=True)


def delete(cloud: Cloud, endpoint: str) -> None:
    """Delete the endpoint with all its deployments, and wait until it is gone."""
    begin = cloud.ml.online_endpoints.begin_delete
    settle(f"delete endpoint {endpoint}", lambda: begin(endpoint), gone=True)


def settle(what: str, begin: Callable[[], Any], *, gone: bool = False) -> None:
    """Begin an operation that may be begun twice, and wait for its end.

    Waits while another operation on the same endpoint is under way (409). With `gone`, a thing that
    is not there is as good as deleted. CloudError otherwise.
    """

    def whole() -> None:
        with quiet():
            begin().result()

    end = time.monotonic() + BUSY_SECONDS
    told = False
    while True:
        try:
            return retry.call(what, whole)
        except NotFound:
            if gone:
                return None
            raise
        except Refused as refused:
            if not refused.status:  # it was begun, and failed
                raise Refused(f"{refused} {AFTER_FAILURE}", code=refused.code) from refused
            if refused.status != CONFLICT:
                raise
            if time.monotonic() > end:
                raise CloudError(
                    f"could not {what}: another operation is still under way after "
                    f"{BUSY_SECONDS / 60:.0f} min; next: make cloud-status, then the same again."
                ) from refused
        if not told:
            say(f"waiting to {what}: another operation is under way")
            told = True
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the dots that the SDK prints for each poll out of our results on stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def logs(cloud: Cloud, endpoint: str, deployment: str, lines: int = LOG_LINES) -> dict[str, str]:
    """The last lines of both containers; where one has none to give, the service's reason."""
    from azure.core.exceptions import AzureError

    found: dict[str, str] = {}
    for container in CONTAINERS:
        try:
            found[container] = cloud.ml.online_deployments.get_logs(
                deployment, endpoint, lines, container_type=container
            ).strip()
        except AzureError as error:
            found[container] = f"(no log: {retry.words(error)})"
    return found

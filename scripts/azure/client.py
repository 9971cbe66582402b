"""The one client of the cloud verbs: who asks, which workspace, REST where the SDK lacks a call.

    cloud = connect()

Which workspace: AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_WORKSPACE, from the
environment or .env; else the config.json that Azure ML's studio offers for download, in this
folder. Who: what DefaultAzureCredential finds (environment, managed identity, az login, …), then a
browser. It makes nothing there.
"""

import base64
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from scripts.azure import retry
from scripts.azure.retry import NotFound as NotFound
from scripts.azure.retry import Refused as Refused
from scripts.console import say
from scripts.errors import CloudError, UsageError
from scripts.settings import ROOT, SECRET, environment, login_shown

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

REHEARSED = "rehearsed, not Azure"
"""Stands in every result that came of the local Azure."""
ARM = "https://management.azure.com"
ARM_SCOPE = f"{ARM}/.default"
WORKSPACE_API = "2024-10-01-preview"
"""api-version of the workspace and its datastores, as azure-ai-ml 1.34 sends it."""
TIMEOUT_SECONDS = 60
"""For a connection, and for each wait for bytes of an answer."""
VERBS = {"GET": "read", "PUT": "write", "PATCH": "change", "POST": "ask", "DELETE": "delete"}
KEYS = {
    "AZURE_SUBSCRIPTION_ID": "subscription_id",
    "AZURE_RESOURCE_GROUP": "resource_group",
    "AZURE_WORKSPACE": "workspace_name",
}
"""What names the workspace, and its keys in config.json."""


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

    `path` is an ARM id and what follows, or a whole https URL (a region's API, a vault). `scope`
    is the token's, by default that of management.azure.com. Retries 429, 5xx and broken
    connections with backoff, honouring Retry-After; a POST only where `again` says that doing it
    twice is the same as once. Other statuses raise Refused (a CloudError) with the service's own
    sentence; 404 raises NotFound.
    """

    def __init__(self, credential: "TokenCredential") -> None:
        from azure.core.pipeline.policies import ProxyPolicy, UserAgentPolicy
        from azure.core.pipeline.transport import RequestsTransport

        self._credential = credential
        self._transport = RequestsTransport()
        self._policies = [UserAgentPolicy("homeport"), ProxyPolicy()]

    def get(
        self,
        path: str,
        api_version: str = "",
        *,
        scope: str = "",
        waits: Sequence[float] = retry.WAITS,
        **query: str,
    ) -> Any:
        return self._send("GET", path, api_version, scope, None, query, waits=waits)

    def put(
        self,
        path: str,
        body: Any,
        api_version: str = "",
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return self._send("PUT", path, api_version, scope, body, headers=headers)

    def patch(self, path: str, body: Any, api_version: str = "", *, scope: str = "") -> Any:
        return self._send("PATCH", path, api_version, scope, body)

    def post(
        self, path: str, body: Any, api_version: str = "", *, scope: str = "", again: bool = True
    ) -> Any:
        return self._send("POST", path, api_version, scope, body, again=again)

    def delete(self, path: str, api_version: str = "", *, scope: str = "") -> None:
        self._send("DELETE", path, api_version, scope, None)

    def all(self, path: str, api_version: str = "", **query: str) -> list[Any]:
        """All items of a list, page by page (`value` and `nextLink`)."""
        page = self._send("GET", path, api_version, "", None, query)
        items = list(page["value"])
        while link := page.get("nextLink"):
            page = self.get(link)
            items += page["value"]
        return items

    def _send(
        self,
        method: str,
        path: str,
        api_version: str,
        scope: str,
        body: Any,
        query: Mapping[str, str] | None = None,
        *,
        again: bool = True,
        waits: Sequence[float] = retry.WAITS,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON, or None where it has no body."""
        from azure.core.exceptions import HttpResponseError
        from azure.core.pipeline import Pipeline
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy
        from azure.core.rest import HttpRequest

        url = path if path.startswith("https://") else f"{ARM}{path}"
        params = {**({"api-version": api_version} if api_version else {}), **(query or {})}
        bearer = BearerTokenCredentialPolicy(self._credential, scope or ARM_SCOPE)

        def once() -> Any:
            pipeline: Any = Pipeline(self._transport, [*self._policies, bearer])
            more = dict(headers or {})
            request = HttpRequest(method, url, params=params, json=body, headers=more)
            response = pipeline.run(
                request, connection_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS
            ).http_response
            if response.status_code >= 400:
                raise HttpResponseError(response=response)
            return response.json() if response.content else None

        return retry.call(
            f"{VERBS[method]} {path.partition('?')[0]}", once, again=again, waits=waits
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """The workspace, and the means to speak with it."""

    ml: "MLClient"
    credential: "TokenCredential"
    workspace: Workspace
    rest: Rest
    owner: str = ""
    """Who asks, as the token names them: a user's sign-in name or an application's id."""

    def label(self) -> str:
        """REHEARSED on the local Azure, empty on Azure."""
        return REHEARSED if self.workspace.rehearsal else ""


def connect() -> Cloud:
    """Find the workspace and log in, saying both; UsageError or CloudError otherwise."""
    environ = environment()
    subscription, group, name = _which(environ, ROOT / "config.json")
    for key in [key for key in {*environ, *os.environ} if key.startswith("AZURE_")]:
        if key not in environ:  # an empty value, which azure-identity takes for one
            del os.environ[key]
        elif not SECRET.fullmatch(key):  # it reads the environment, not .env
            os.environ[key] = environ[key]
    _quiet()
    with login_shown():
        credential = _credential()
    rest = Rest(credential)
    owner = _log_in(credential)
    workspace = _workspace(rest, subscription, group, name)
    where = REHEARSED if workspace.rehearsal else workspace.location
    say(f"azure:  workspace {name} in {group} ({where}), as {owner}")
    return Cloud(
        ml=client(credential, workspace),
        credential=credential,
        workspace=workspace,
        rest=rest,
        owner=owner,
    )


def client(credential: "TokenCredential", workspace: Workspace, **options: Any) -> "MLClient":
    """The SDK's client; `options` go to its pipelines, such as `retry_total`."""
    from azure.ai.ml import MLClient

    return MLClient(
        credential,
        workspace.subscription,
        workspace.resource_group,
        workspace.name,
        enable_telemetry=False,
        show_progress=False,
        **options,
    )


def _which(environ: Mapping[str, str], file: Path) -> tuple[str, str, str]:
    """Subscription, resource group and workspace; UsageError names what is missing."""
    found: dict[str, str] = {}
    if file.is_file() and not all(environ.get(key) for key in KEYS):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{file} is no JSON ({error}): download it anew.") from None
    values = [environ.get(key) or found.get(name) or "" for key, name in KEYS.items()]
    missing = [key for key, value in zip(KEYS, values, strict=True) if not value]
    if missing:
        raise UsageError(
            f"which Azure ML workspace? Set {', '.join(missing)} in .env, or put the workspace's "
            "config.json (Azure ML studio offers it) here; make rehearse needs none."
        )
    subscription, group, name = values
    return subscription, group, name


def _quiet() -> None:
    """Silence what the SDK says about itself; its errors reach us as exceptions."""
    import warnings

    for name in ("azure", "azure.identity", "azure.ai.ml", "msrest", "msal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")  # deprecations inside the SDK are not the user's to read


def _credential() -> "TokenCredential":
    from azure.identity import DefaultAzureCredential

    # a browser only where somebody sits
    browser = sys.stderr.isatty()
    try:
        found = DefaultAzureCredential(exclude_interactive_browser_credential=not browser)
    except ValueError as error:  # an id that cannot be one
        raise UsageError(
            f"the login that is set cannot be used ({' '.join(str(error).split())}): correct or "
            "unset AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
        ) from None
    return cast("TokenCredential", found)


def _log_in(credential: "TokenCredential") -> str:
    """Ask for the first token; who asks."""
    from azure.core.exceptions import ClientAuthenticationError

    try:
        token = retry.call("log in", lambda: credential.get_token(ARM_SCOPE)).token
    except CloudError as error:
        refused = error.__cause__
        if not isinstance(refused, ClientAuthenticationError) or retry.unreached(refused):
            raise
        raise CloudError(
            "nobody is logged in to Azure, or the login is not accepted: az login, or set "
            "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
        ) from error
    return _who(token)


def _who(token: str) -> str:
    """The name in the token's claims, for people and tags; nothing is decided by it."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return "unknown"
    for claim in ("upn", "unique_name", "preferred_username", "appid", "azp", "oid"):
        if value := claims.get(claim):
            return str(value)
    return "unknown"


def _workspace(rest: Rest, subscription: str, group: str, name: str) -> Workspace:
    arm_id = (
        f"/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{name}"
    )
    try:
        found = rest.get(arm_id, WORKSPACE_API)
    except NotFound:
        raise UsageError(
            f"workspace {name} is not in resource group {group} of subscription {subscription}, or "
            f"you may not see it: az ml workspace list --resource-group {group}"
        ) from None
    properties = found["properties"]
    rehearsal = (found.get("tags") or {}).get("homeport-rehearsal", "")
    return Workspace(
        id=arm_id,
        name=name,
        resource_group=group,
        subscription=subscription,
        location=found["location"],
        guid=properties["workspaceId"],
        api=rest.get(properties["discoveryUrl"])["api"].rstrip("/"),
        registry_id=properties.get("containerRegistry") or "",
        key_vault_id=properties.get("keyVault") or "",
        storage_id=properties.get("storageAccount") or "",
        principal_id=(found.get("identity") or {}).get("principalId") or "",
        rehearsal=rehearsal if rehearsal in ("docker", "host") else "",
    )

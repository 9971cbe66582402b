"""Managed online endpoints: the resource, its traffic, keys and tokens.

PUT answers 201 with state Creating and no traffic, as recordings of the service show it; the
traffic of an update holds at once. What an endpoint routes to is in deployments.py and scoring.py.
"""

import time
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from emulator import online, serving, tokens
from emulator.azure import Azure
from emulator.http import ARM, Reply, Request, Route
from emulator.rollout import GRACE_SECONDS
from emulator.store import Resource

MAX_MIRROR = 50
"""Percent of the traffic that may be copied to a deployment."""
AUTH_MODES = {"key": "Key", "amltoken": "AMLToken", "aadtoken": "AADToken"}


def routes(azure: Azure) -> list[Route]:
    one = online.ENDPOINT
    return [
        Route("PUT", ARM, one, partial(put, azure)),
        Route("GET", ARM, one, partial(get, azure)),
        Route("GET", ARM, online.ENDPOINTS, partial(list_all, azure)),
        Route("DELETE", ARM, one, partial(delete, azure)),
        Route("POST", ARM, rf"{one}/listKeys", partial(list_keys, azure)),
        Route("POST", ARM, rf"{one}/regenerateKeys", partial(regenerate_keys, azure)),
        Route("POST", ARM, rf"{one}/token", partial(token, azure)),
    ]


def find(azure: Azure, endpoint_id: str) -> Resource:
    """The endpoint; Refusal 404 without it."""
    found = azure.store.get(endpoint_id)
    if found is None:
        raise online.not_found("online endpoint", endpoint_id.rpartition("/")[2])
    return found


def put(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    arm_id, name = groups["endpoint_id"], groups["endpoint"]
    online.check_name("endpoint", name)
    before = azure.store.get(arm_id)
    if before and before["properties"]["provisioningState"] in online.BUSY:
        raise online.conflict("endpoint", name)
    body = request.json()
    given = dict(body["properties"])
    keys = given.pop("keys", None) or {}
    _check(azure, arm_id, given)
    for which in ("primary", "secondary"):
        if value := keys.get(f"{which}Key"):
            serving.fleet(azure).keys(arm_id).replace(which, value)
    resource = azure.store.put(
        arm_id,
        {
            "location": body["location"],
            "tags": body.get("tags") or {},
            "kind": "Managed",
            "identity": _identity(azure, arm_id, body.get("identity")),
            "properties": {
                **given,
                "properties": given.get("properties") or {},
                "authMode": AUTH_MODES[str(given["authMode"]).lower()],
                "traffic": given.get("traffic") or {},
                "mirrorTraffic": given.get("mirrorTraffic") or {},
                "publicNetworkAccess": given.get("publicNetworkAccess") or "Enabled",
                "scoringUri": f"https://{_host(azure, name)}/score",
                "swaggerUri": f"https://{_host(azure, name)}/swagger.json",
                "provisioningState": "Updating" if before else "Creating",
            },
        },
    )
    headers = azure.operations.start(
        request.api_version, partial(_provision, azure, arm_id), target=arm_id
    )
    return Reply(200 if before else 201, resource, headers)


def get(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    return Reply(200, find(azure, groups["endpoint_id"]))


def list_all(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    return Reply(200, {"value": azure.store.children(groups["collection"])})


def delete(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """Ends its deployments first, also those that are just coming up."""
    arm_id = groups["endpoint_id"]
    if azure.store.get(arm_id) is None:
        return Reply(204)
    with azure.store.changed(arm_id) as resource:
        resource["properties"]["provisioningState"] = "Deleting"

    def work() -> None:
        serving.fleet(azure).close(arm_id, GRACE_SECONDS)
        azure.store.delete(arm_id)

    return Reply(202, None, azure.operations.start(request.api_version, work))


def list_keys(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    endpoint = find(azure, groups["endpoint_id"])
    if endpoint["properties"]["authMode"] != "Key":
        raise online.invalid("The endpoint's authentication mode is not key.", "authMode")
    keys = serving.fleet(azure).keys(groups["endpoint_id"]).values
    return Reply(200, {"primaryKey": keys["primary"], "secondaryKey": keys["secondary"]})


def regenerate_keys(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """Sets the key to `keyValue` where one is given, as the contract says; azure-ai-ml sends the
    present one, so that nothing changes."""
    arm_id = groups["endpoint_id"]
    find(azure, arm_id)
    body = request.json()
    serving.fleet(azure).keys(arm_id).replace(body["keyType"], body.get("keyValue"))
    return Reply(202, None, azure.operations.start(request.api_version, lambda: None))


def token(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    endpoint = find(azure, groups["endpoint_id"])
    if endpoint["properties"]["authMode"] != "AMLToken":
        raise online.invalid("The endpoint's authentication mode is not aml_token.", "authMode")
    ends = int(time.time()) + tokens.SECONDS
    return Reply(
        200,
        {
            "accessToken": azure.tokens.issue(endpoint["id"].lower(), azure.tokens.client_id),
            "expiryTimeUtc": ends,
            "refreshAfterTimeUtc": ends - tokens.SECONDS // 2,
            "tokenType": "Bearer",
        },
    )


def _provision(azure: Azure, arm_id: str) -> None:
    if fault := azure.faults.take("failed_provisioning", path=arm_id):
        raise online.failure_of(fault.cause)


def _host(azure: Azure, name: str) -> str:
    return f"{name}.{azure.settings.location}.{online.SCORING_HOST}".lower()


def _identity(azure: Azure, arm_id: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """The endpoint's own identity has an object id, always the same for the same ARM id."""
    return {
        **(given or {"type": "SystemAssigned"}),
        "principalId": str(uuid.uuid5(uuid.NAMESPACE_URL, arm_id.lower())),
        "tenantId": azure.settings.tenant,
    }


def _check(azure: Azure, arm_id: str, properties: dict[str, Any]) -> None:
    """Refusal 400 for traffic that cannot be routed."""
    live, mirror = properties.get("traffic") or {}, properties.get("mirrorTraffic") or {}
    states = {
        deployment["name"].lower(): deployment["properties"]["provisioningState"]
        for deployment in azure.store.children(f"{arm_id}/deployments")
    }
    for field, traffic in (("traffic", live), ("mirrorTraffic", mirror)):
        for name, percent in traffic.items():
            if name.lower() not in states:
                raise online.invalid(
                    f"The deployment '{name}' in the {field} does not exist in the endpoint.",
                    field,
                )
            if not 0 <= int(percent) <= 100:
                raise online.invalid(f"The {field} of '{name}' must be from 0 to 100.", field)
    if sum(live.values()) not in (0, 100):
        raise online.invalid(
            f"The traffic values must sum to 0 or 100; they sum to {sum(live.values())}.",
            "traffic",
        )
    shadows = {name for name, percent in mirror.items() if percent}
    if len(shadows) > 1 or sum(mirror.values()) > MAX_MIRROR:
        raise online.invalid(
            f"Traffic can be mirrored to one deployment only, at most {MAX_MIRROR} percent.",
            "mirrorTraffic",
        )
    if shadows & {name for name, percent in live.items() if percent}:
        raise online.invalid(
            "A deployment can receive live or mirrored traffic, not both.", "mirrorTraffic"
        )

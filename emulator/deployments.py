"""Managed online deployments: the resource, and the operations that serving.py carries out.

A deployment whose first provisioning failed stays, as on Azure: it can only be deleted. One whose
update failed serves on as before.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from emulator import deployment_spec, online, serving
from emulator.azure import Azure
from emulator.endpoints import find as find_endpoint
from emulator.http import ARM, Reply, Request, Route
from emulator.rollout import GRACE_SECONDS
from emulator.store import Resource

DEPLOYMENTS = rf"(?P<collection>{online.ENDPOINT}/deployments)"
DEPLOYMENT = rf"(?P<deployment_id>{online.ENDPOINT}/deployments/(?P<deployment>[^/]+))"


def routes(azure: Azure) -> list[Route]:
    return [
        Route("PUT", ARM, DEPLOYMENT, partial(put, azure)),
        Route("PATCH", ARM, DEPLOYMENT, partial(patch, azure)),
        Route("GET", ARM, DEPLOYMENT, partial(get, azure)),
        Route("GET", ARM, DEPLOYMENTS, partial(list_all, azure)),
        Route("DELETE", ARM, DEPLOYMENT, partial(delete, azure)),
        Route("POST", ARM, rf"{DEPLOYMENT}/getLogs", partial(get_logs, azure)),
    ]


def find(azure: Azure, groups: Mapping[str, str]) -> Resource:
    """The deployment; Refusal 404 without it."""
    find_endpoint(azure, groups["endpoint_id"])
    found = azure.store.get(groups["deployment_id"])
    if found is None:
        raise online.not_found("online deployment", groups["deployment"])
    return found


def put(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    arm_id, name = groups["deployment_id"], groups["deployment"]
    online.check_name("deployment", name)
    endpoint = azure.store.get(groups["endpoint_id"])
    if not endpoint or endpoint["properties"]["provisioningState"] not in ("Succeeded", "Updating"):
        raise online.invalid(
            "This endpoint has not been created successfully or is in deleting provisioning state. "
            "Please recreate endpoint and then try again to create deployment."
        )
    before = azure.store.get(arm_id)
    if before:
        _check_changeable(azure, before)
    body = request.json()
    resource = {
        "location": body["location"],
        "tags": body.get("tags") or {},
        "kind": "Managed",
        "sku": {"name": "Default", **(body.get("sku") or {})},
        "properties": deployment_spec.completed(body["properties"]),
    }
    instance_type = resource["properties"].get("instanceType")
    if not instance_type:
        raise online.invalid("The instance type is required.", "InstanceType")
    deployment_spec.read(azure, resource)
    _check_quota(azure, arm_id, instance_type)
    resource["properties"]["provisioningState"] = "Updating" if before else "Creating"
    kept = azure.store.put(arm_id, resource)
    return Reply(200 if before else 201, kept, _apply(azure, request, arm_id))


def patch(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """Tags and the number of instances."""
    before = find(azure, groups)
    _check_changeable(azure, before)
    body = request.json()
    after = {
        **before,
        "tags": before["tags"] | (body.get("tags") or {}),
        "sku": before["sku"] | (body.get("sku") or {}),
    }
    deployment_spec.read(azure, after)
    after["properties"]["provisioningState"] = "Scaling"
    azure.store.put(before["id"], after)
    return Reply(202, None, _apply(azure, request, before["id"]))


def get(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    return Reply(200, find(azure, groups))


def list_all(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    find_endpoint(azure, groups["endpoint_id"])
    return Reply(200, {"value": azure.store.children(groups["collection"])})


def delete(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """Refused while live traffic goes there (how-to-safely-rollout-online-endpoints)."""
    arm_id, name = groups["deployment_id"], groups["deployment"]
    if azure.store.get(arm_id) is None:
        return Reply(204)
    traffic = find_endpoint(azure, groups["endpoint_id"])["properties"]["traffic"]
    if any(percent and to.lower() == name.lower() for to, percent in traffic.items()):
        raise online.invalid(
            f"The deployment '{name}' has live traffic allocated to it. Set its traffic to 0 "
            "before deleting it.",
            "traffic",
        )
    with azure.store.changed(arm_id) as resource:
        resource["properties"]["provisioningState"] = "Deleting"

    def work() -> None:
        serving.fleet(azure).close(arm_id, GRACE_SECONDS)
        azure.store.delete(arm_id)

    return Reply(202, None, azure.operations.start(request.api_version, work))


def get_logs(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    deployment = find(azure, groups)
    body: dict[str, Any] = request.json()
    service = serving.fleet(azure).service(azure, deployment["id"])
    container = str(body.get("containerType") or "InferenceServer")
    if container.lower() == "storageinitializer":
        content = service.storage_log(body.get("tail"))
    else:
        content = service.inference_log(body.get("tail"))
    return Reply(200, {"content": content})


def _apply(azure: Azure, request: Request, arm_id: str) -> dict[str, str]:
    service = serving.fleet(azure).service(azure, arm_id)
    return azure.operations.start(request.api_version, service.apply, target=arm_id)


def _check_changeable(azure: Azure, deployment: Resource) -> None:
    name, state = deployment["name"], deployment["properties"]["provisioningState"]
    if state in online.BUSY:
        raise online.conflict("deployment", name)
    if state == "Failed" and serving.fleet(azure).service(azure, deployment["id"]).spec is None:
        raise online.invalid(
            f"Specified deployment [{name}] failed during initial provisioning and is in an "
            "unrecoverable state. Delete and re-create."
        )


def _check_quota(azure: Azure, arm_id: str, instance_type: str) -> None:
    if azure.faults.take("quota", path=arm_id):
        raise online.invalid(
            f"Not enough quota available for {instance_type} in SubscriptionId "
            f"{azure.settings.subscription}. Current usage/limit: 0/0. Additional needed: 1 "
            f"{online.GUIDE}outofquota",
            "VmSize",
        )

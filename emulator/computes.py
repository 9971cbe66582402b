"""Clusters: created, listed, deleted; the contract lets no other computes in.

A cluster here keeps no idle nodes: it has as many as its running jobs ask for, and 0 at rest.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from emulator.assets import not_found
from emulator.azure import Azure
from emulator.http import ARM, WORKSPACE, Refusal, Reply, Request, Route
from emulator.store import Resource, now

AT_WORK = ("Preparing", "Running", "Finalizing", "CancelRequested")


def quota_refusal(azure: Azure, instance: str, cause: str) -> Refusal:
    """The service's refusal for lack of quota; `cause` stands for its sentence where it is set."""
    sentence = cause or (
        f"Not enough quota available for {instance} in SubscriptionId "
        f"{azure.settings.subscription}. Current usage/limit: 0/0."
    )
    return Refusal(400, "OutOfQuota", sentence)


class Computes:
    """The routes of computes."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    def put(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """PUT: made or changed by a long-running operation."""
        given, store = request.json(), self._azure.store
        properties = dict(given["properties"])
        before = store.get(request.path)
        size = str((properties.get("properties") or {}).get("vmSize"))
        if fault := self._azure.faults.take("quota", path=request.path):
            raise quota_refusal(self._azure, size, fault.cause)
        properties |= {
            "computeLocation": self._azure.settings.location,
            "provisioningState": "Updating" if before else "Creating",
            "createdOn": before["properties"]["createdOn"] if before else now(),
            "modifiedOn": now(),
            "isAttachedCompute": False,
        }
        location = {"location": self._azure.settings.location, "tags": {}}
        made = {**location, **given, "properties": properties}
        if given.get("identity"):
            made["identity"] = self._identity(request.path, given["identity"])
        store.put(request.path, made)

        def provision() -> None:
            if fault := self._azure.faults.take("failed_provisioning", path=request.path):
                raise Refusal(400, "ComputeAllocationFailed", fault.cause or "No nodes were had.")

        answer = self._shown(request.path)
        headers = self._azure.operations.start(request.api_version, provision, target=request.path)
        return Reply(200 if before else 201, answer, headers)

    def get(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET."""
        return Reply(200, self._shown(request.path))

    def listed(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET the collection."""
        found = self._azure.store.children(request.path)
        return Reply(200, {"value": [self._shown(compute["id"]) for compute in found]})

    def nodes(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST listNodes: a node per instance of each job at work."""
        self._shown(request.path.rpartition("/")[0])
        nodes = [
            {
                "nodeId": f"{job['name']}-{instance}",
                "privateIpAddress": None,
                "publicIpAddress": None,
                "port": None,
                "nodeState": "running",
                "runId": job["name"],
            }
            for job in self._at_work(request.path.rpartition("/")[0])
            for instance in range(_instances(job))
        ]
        return Reply(200, {"nodes": nodes})

    def delete(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """DELETE by a long-running operation; refused while a job runs on it."""
        if self._azure.store.get(request.path) is None:
            return Reply(204)
        if busy := self._at_work(request.path):
            names = ", ".join(str(job["name"]) for job in busy)
            raise Refusal(409, "UserError", f"Jobs still run on the compute: {names}.")

        def remove() -> None:
            self._azure.store.delete(request.path)

        return Reply(202, None, self._azure.operations.start(request.api_version, remove))

    def _identity(self, compute_id: str, asked: Mapping[str, Any]) -> Resource:
        """The identity as Entra has made it, or knows it by its id."""

        def principal(of: str) -> str:
            return str(uuid.uuid5(uuid.NAMESPACE_URL, of.lower()))

        kind = str(asked.get("type") or "None")
        made: Resource = {"type": kind}
        if "systemassigned" in kind.lower():
            tenant = self._azure.settings.tenant
            made |= {"principalId": principal(compute_id), "tenantId": tenant}
        if assigned := asked.get("userAssignedIdentities"):
            made["userAssignedIdentities"] = {
                of: {"principalId": principal(of), "clientId": principal(f"{of} client")}
                for of in assigned
            }
        return made

    def _at_work(self, compute_id: str) -> list[Resource]:
        jobs = self._azure.store.children(f"{self._azure.settings.workspace_id}/jobs")
        return [
            job
            for job in jobs
            if str(job["properties"].get("computeId")).lower() == compute_id.lower()
            and job["properties"]["status"] in AT_WORK
        ]

    def _shown(self, compute_id: str) -> Resource:
        found = self._azure.store.get(compute_id)
        if found is None:
            raise not_found(compute_id)
        count = sum(_instances(job) for job in self._at_work(compute_id))
        states = ("idle", "running", "preparing", "unusable", "leaving", "preempted")
        counts = {f"{state}NodeCount": 0 for state in states} | {"runningNodeCount": count}
        scale: dict[str, Any] = {
            "allocationState": "Steady",
            "allocationStateTransitionTime": found["properties"]["modifiedOn"],
            "currentNodeCount": count,
            "targetNodeCount": count,
            "nodeStateCounts": counts,
            "errors": None,
        }
        cluster = {**(found["properties"].get("properties") or {}), **scale}
        found["properties"]["properties"] = cluster
        return found


def _instances(job: Resource) -> int:
    return int((job["properties"].get("resources") or {}).get("instanceCount") or 1)


def routes(azure: Azure) -> list[Route]:
    """Computes of the workspace."""
    computes = Computes(azure)
    every = rf"{WORKSPACE}/computes"
    one = rf"{every}/(?P<name>[^/]+)"
    return [
        Route("PUT", ARM, one, computes.put),
        Route("GET", ARM, one, computes.get),
        Route("GET", ARM, every, computes.listed),
        Route("POST", ARM, rf"{one}/listNodes", computes.nodes),
        Route("DELETE", ARM, one, computes.delete),
    ]

"""Codes, data, environments, models and components: versions of named assets.

The bytes are uploaded by the client to storage; a version says where they lie. A model that names a
job's output gets the place where that output really is, and is refused where nothing is there.
Registries (shared among workspaces) are in registries.py.
"""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from emulator.azure import Azure
from emulator.http import API, ARM, WORKSPACE, Refusal, Reply, Request, Route
from emulator.storage import DATASTORE_URI, locate
from emulator.store import Resource

NAME_CHARACTERS = 63
"""Longest name of a blob container, which a code's upload gets of its own."""
JOB_OUTPUT = re.compile(r"azureml://jobs/([^/]+)/outputs/([^/]+?)(?:/paths/?(.*?))?/?")
ASSET_ID = re.compile(
    r"azureml://locations/[^/]+/workspaces/[^/]+/(data|models)/([^/]+)/versions/([^/]+)"
)
OUTPUT_ASSET = re.compile(r"azureml_(.+)_output_([^_/].*)")
"""The name under which the service keeps an output of a job as an asset."""
ADDRESS = {"codes": "codeUri", "data": "dataUri", "models": "modelUri"}
"""The property that says where the bytes of a version lie."""
FIXED = {
    **{kind: (member,) for kind, member in ADDRESS.items()},
    "environments": ("image", "build", "condaFile", "inferenceConfig"),
    "components": ("componentSpec",),
}
"""The properties of a version that can be set once only."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "codes": {},
    "data": {"isAnonymous": False, "isArchived": False},
    "environments": {
        "isAnonymous": False,
        "isArchived": False,
        "environmentType": "UserCreated",
        "osType": "Linux",
        "autoRebuild": "Disabled",
    },
    "models": {"isAnonymous": False, "isArchived": False, "flavors": {}},
    "components": {"isAnonymous": False, "isArchived": False},
}
"""What the service adds to a version."""
MUTABLE = ("description", "tags", "properties", "isArchived", "stage")


def not_found(what: str) -> Refusal:
    """The service's 404."""
    details = [{"code": "NotFound", "message": what}]
    return Refusal(404, "UserError", "The specified resource was not found.", details=details)


def output_uri(azure: Azure, job: Resource, output: str) -> str:
    """azureml:// URI of the folder of a job's output; Refusal 400 where it has none of that name.

    `artifacts` is what the job has written into its own ./outputs and ./logs.
    """
    name, outputs = job["name"], job["properties"]["outputs"]
    output = "default" if output == "artifacts" else output
    if output not in outputs:
        raise Refusal(400, "UserError", f"Job {name} has no output {output}.")
    uri = str(outputs[output]["uri"])
    found = DATASTORE_URI.fullmatch(uri)
    if found is None:
        raise Refusal(400, "UserError", f"Output {output} of job {name} is in no datastore: {uri}.")
    datastore, path = found.groups()
    settings = azure.settings
    return (
        f"azureml://subscriptions/{settings.subscription}/resourcegroups/"
        f"{settings.resource_group}/workspaces/{settings.workspace}"
        f"/datastores/{datastore}/paths/{path.rstrip('/')}/"
    )


def latest(versions: list[Resource]) -> list[Resource]:
    """Newest first."""
    return sorted(versions, key=lambda v: str(v["systemData"]["createdAt"]), reverse=True)


class Assets:
    """The routes of all kinds of assets."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    def containers(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET {kind}: all names, each with its latest version."""
        found = self._azure.store.children(request.path)
        return Reply(200, {"value": [c for c in found if _listed(c, request)]})

    def container(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET {kind}/{name}."""
        return Reply(200, self._get(request.path))

    def put_container(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """PUT {kind}/{name}: tags, description and archiving of all its versions."""
        body = request.json()["properties"]
        found = self._get(request.path)
        found["properties"].update({k: v for k, v in body.items() if k in MUTABLE})
        return Reply(200, self._azure.store.put(request.path, found))

    def versions(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET {kind}/{name}/versions: newest first; a code is found by its content's hash alone."""
        if "hash" in request.query:
            return Reply(200, {"value": self._codes_of(request.query["hash"])})
        found = self._azure.store.children(request.path)
        if not found and groups["kind"].lower() != "codes":
            raise not_found(request.path)
        listed = latest([v for v in found if _listed(v, request)])
        return Reply(200, {"value": listed[: int(request.query.get("$top", len(listed)))]})

    def version(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET {kind}/{name}/versions/{version}."""
        return Reply(200, self._get(request.path))

    def put_version(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """PUT {kind}/{name}/versions/{version}: new, or the same again with other tags."""
        kind, store = groups["kind"].lower(), self._azure.store
        given = dict(request.json()["properties"])
        if kind == "models":
            given |= self._resolved(str(given.get("modelUri", "")))
        if kind == "data" and JOB_OUTPUT.fullmatch(str(given.get("dataUri", ""))):
            given["dataUri"] = self._resolved(given["dataUri"])["modelUri"]
        before = store.get(request.path)
        if before and any(before["properties"].get(m) != given.get(m) for m in FIXED[kind]):
            raise Refusal(400, "UserError", _cannot_change(kind))
        kept = before["properties"] if before else {**DEFAULTS[kind], "tags": {}, "properties": {}}
        properties = {**kept, **{k: v for k, v in given.items() if v is not None}}
        if kind != "data":
            properties["provisioningState"] = "Succeeded"
        made = store.put(request.path, {"properties": properties})
        self._count(request.path.rpartition("/versions/")[0], kind, made)
        return Reply(200 if before else 201, made)

    def delete(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """DELETE a version, or a name with all its versions; the bytes stay in storage."""
        return Reply(200 if self._azure.store.delete(request.path) else 204)

    def start_upload(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST startPendingUpload: a new blob container, and the SAS to fill it."""
        settings, storage = self._azure.settings, self._azure.storage
        container = f"{settings.guid}-{uuid.uuid4().hex}"[:NAME_CHARACTERS]
        storage.create_container(container)
        uri = storage.url(container)
        expired = self._azure.faults.take("expired_sas", path=request.path) is not None
        blob = {
            "blobUri": uri,
            "storageAccountArmId": settings.storage_id,
            "credential": {
                "credentialType": "SAS",
                "sasUri": f"{uri}?{storage.sas(expired=expired)}",
            },
        }
        body = {
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": blob,
        }
        return Reply(200, body)

    def resolve(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST batchGetResolvedUris of the data plane: where assets and jobs' outputs lie."""
        values: dict[str, Any] = {}
        for asset in request.json()["values"]:
            uri = self._place_of(str(asset))
            is_model = groups["plane"].lower() == "modelregistry"
            values[asset] = {"path": uri} if is_model else {"uri": uri, "type": "UriFolder"}
        return Reply(200, {"values": values})

    def _get(self, arm_id: str) -> Resource:
        found = self._azure.store.get(arm_id)
        if found is None:
            raise not_found(arm_id)
        return found

    def _codes_of(self, content_hash: str) -> list[Resource]:
        store, found = self._azure.store, []
        for code in store.children(f"{self._azure.settings.workspace_id}/codes"):
            for version in store.children(f"{code['id']}/versions"):
                of = version["properties"].get("properties") or {}
                if of.get("hash_sha256") == content_hash:
                    found.append(version)
        return found

    def _count(self, container_id: str, kind: str, version: Resource) -> None:
        """Keep the container that names the latest version."""
        store = self._azure.store
        before = store.get(container_id)
        if before is None:
            properties: dict[str, Any] = {"isArchived": False, "tags": {}, "properties": {}}
            if kind == "data":
                properties["dataType"] = version["properties"]["dataType"]
        else:
            properties = before["properties"]
        numbers = [
            int(v["name"])
            for v in store.children(f"{container_id}/versions")
            if v["name"].isdigit()
        ]
        properties["latestVersion"] = latest(store.children(f"{container_id}/versions"))[0]["name"]
        properties["nextVersion"] = str(max(numbers, default=0) + 1)
        store.put(container_id, {"properties": properties})

    def _resolved(self, uri: str) -> dict[str, str]:
        """Properties of a model that is a job's output; those given, where it is something else."""
        found = JOB_OUTPUT.fullmatch(uri)
        if not found:
            return {"modelUri": uri}
        job = self._azure.store.get(f"{self._azure.settings.workspace_id}/jobs/{found[1]}")
        if job is None:
            raise Refusal(400, "UserError", f"Job {found[1]} was not found.")
        place = output_uri(self._azure, job, found[2]) + (found[3] or "")
        container, prefix = locate(place, self._azure.settings, self._azure.store)
        if not self._azure.storage.names(container, prefix):
            raise Refusal(400, "UserError", f"No files were found at {uri} ({place}).")
        return {"modelUri": place, "jobName": found[1]}

    def _place_of(self, asset: str) -> str:
        found = ASSET_ID.fullmatch(asset)
        if not found:
            raise Refusal(400, "UserError", f"{asset} is no id of an asset.")
        workspace = self._azure.settings.workspace_id
        if output := OUTPUT_ASSET.fullmatch(found[2]):
            job = self._azure.store.get(f"{workspace}/jobs/{output[1]}")
            if job:
                return output_uri(self._azure, job, output[2])
        properties = self._get(f"{workspace}/{found[1]}/{found[2]}/versions/{found[3]}")[
            "properties"
        ]
        return str(properties[ADDRESS[found[1]]])


def _listed(resource: Resource, request: Request) -> bool:
    """Whether listViewType (ActiveOnly unless said) asks for it."""
    view = request.query.get("listViewType", "ActiveOnly").lower()
    archived = bool(resource["properties"].get("isArchived"))
    return view == "all" or archived == (view == "archivedonly")


def _cannot_change(kind: str) -> str:
    # azure-ai-ml knows the first sentence by heart (_artifacts/_constants.py: ASSET_PATH_ERROR)
    if kind in ADDRESS:
        return "Asset paths cannot be updated."
    return "The version exists already, and what it is made of cannot be updated."


def routes(azure: Azure) -> list[Route]:
    """Assets of the workspace, and where the data plane says that they lie."""
    assets = Assets(azure)
    kinds = rf"{WORKSPACE}/(?P<kind>codes|data|environments|models|components)"
    name = rf"{kinds}/(?P<name>[^/]+)"
    version = rf"{name}/versions/(?P<version>[^/]+)"
    plane = rf"/(?P<plane>data|modelregistry)/v1\.0{WORKSPACE}/(?:dataversion|models)"
    return [
        Route("GET", ARM, kinds, assets.containers),
        Route("GET", ARM, name, assets.container),
        Route("PUT", ARM, name, assets.put_container),
        Route("DELETE", ARM, name, assets.delete),
        Route("GET", ARM, rf"{name}/versions", assets.versions),
        Route("GET", ARM, version, assets.version),
        Route("PUT", ARM, version, assets.put_version),
        Route("DELETE", ARM, version, assets.delete),
        Route("POST", ARM, rf"{version}/startPendingUpload", assets.start_upload),
        Route("POST", API, rf"{plane}/batchGetResolvedUris", assets.resolve),
    ]

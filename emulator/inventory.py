"""All that is here, as the service itself knows it: what a trial compares, whatever clients think.

    of(azure, "mine")    {"resources": [{"id", "state", "traffic", "sha256"}, …], "serving": [ids]}

`sha256` is of the files of a model or data asset, where its ARM id has `mine` in it: reading all
that is there takes seconds. `serving` are the ARM ids of deployments that have a server.
"""

import hashlib
from typing import TYPE_CHECKING, Any

from emulator import serving
from emulator.openai import accounts
from emulator.storage import locate
from emulator.store import Resource

if TYPE_CHECKING:
    from emulator.azure import Azure

SHOWN = (
    "Microsoft.MachineLearningServices/workspaces/jobs",
    "Microsoft.MachineLearningServices/workspaces/models/versions",
    "Microsoft.MachineLearningServices/workspaces/data/versions",
    "Microsoft.MachineLearningServices/workspaces/environments/versions",
    "Microsoft.MachineLearningServices/workspaces/computes",
    "Microsoft.MachineLearningServices/workspaces/onlineEndpoints",
    "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments",
    "Microsoft.CognitiveServices/accounts/deployments",
)
"""Types of resources; what the workspace itself is made of is left out."""


def of(azure: "Azure", hashed: str = "") -> dict[str, Any]:
    """Every resource of the workspace and of Azure OpenAI, and the deployments that run.

    Assets with `hashed` in their ARM id are hashed; none where it is empty.
    """
    found = [_told(azure, one, hashed) for one in azure.store.every() if one["type"] in SHOWN]
    for account in accounts.of(azure).values():
        jobs = [(job.id, job.status) for job in list(account.jobs.values())]
        files = [(file.id, file.status) for file in list(account.files.values())]
        for kind, things in (("jobs", jobs), ("files", files)):
            for name, state in things:
                found.append(_row(f"{account.arm_id}/{kind}/{name}", state))
    return {"resources": found, "serving": serving.fleet(azure).running()}


def _told(azure: "Azure", resource: Resource, hashed: str) -> dict[str, Any]:
    properties = resource["properties"]
    state = properties.get("status") or properties.get("provisioningState") or ""
    sha256 = ""
    is_asset = resource["type"].endswith(("models/versions", "data/versions"))
    if hashed and hashed in resource["id"] and is_asset:
        sha256 = _sha256(azure, resource["id"])
    return _row(resource["id"], state, properties.get("traffic"), sha256)


def _row(arm_id: str, state: str, traffic: Any = None, sha256: str = "") -> dict[str, Any]:
    return {"id": arm_id, "state": state, "traffic": traffic or {}, "sha256": sha256}


def _sha256(azure: "Azure", arm_id: str) -> str:
    """Over the asset's files, by their names; empty where none is there."""
    try:
        container, prefix = locate(arm_id, azure.settings, azure.store)
        names = azure.storage.names(container, prefix.strip("/"))
        hashed = hashlib.sha256()
        for name in sorted(names):
            hashed.update(name.removeprefix(prefix).encode() + azure.storage.read(container, name))
    except KeyError:
        return ""
    return hashed.hexdigest() if names else ""

"""Hand-written stand-ins for the parts of a Cloud, for what needs no service."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from emulator.server import Server
from scripts.azure.client import Cloud, Workspace

WORKSPACE = Workspace(
    id="/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w",
    name="w",
    resource_group="g",
    subscription="s",
    location="eastus",
    guid="1",
    api="https://eastus.api.azureml.ms",
    registry_id="",
    key_vault_id="",
    storage_id="",
    principal_id="",
    rehearsal="",
)


def cloud_of(get: Callable[..., Any] | None = None, ml: Any = None) -> Cloud:
    """A Cloud whose REST answers GET by `get(path, **query)`."""

    def answer(path: str, api_version: str = "", **query: Any) -> Any:
        assert get is not None
        return get(path, **query)

    rest: Any = SimpleNamespace(get=answer)
    credential: Any = None
    return Cloud(ml=ml, credential=credential, workspace=WORKSPACE, rest=rest, owner="me")


def requests_of(server: Server, method: str, part: str) -> list[Any]:
    """The exchanges of that method with the local Azure whose path contains `part`."""
    journal = server.azure.settings.folder / "journal/requests.jsonl"
    text = journal.read_text() if journal.exists() else ""
    entries = [json.loads(line) for line in text.splitlines()]
    return [e for e in entries if e["method"] == method and part in e["path"]]

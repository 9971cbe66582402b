"""Role assignments as Azure makes them by itself, for who checks before spending.

Built-in roles: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles. The
workspace's identity manages its registry, storage and vault; an endpoint's pulls images and reads
models; who rehearses holds what the README asks of a user.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from emulator.azure import Azure
from emulator.store import Resource

ACR_PULL = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
ACR_PUSH = "8311e382-0749-4cb8-b61a-304f252e45ec"
BLOB_READER = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
BLOB_CONTRIBUTOR = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"
DATA_SCIENTIST = "f6c7c914-8db3-469d-8ca1-694a8f32e121"
METRICS_WRITER = "635dd51f-9968-44d3-b7fb-6d9a6bd613ae"
SECRETS_OFFICER = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
VAULT_ADMINISTRATOR = "00482a5a-887f-4fb3-b363-3b7fe8e74483"
GIVEN = "/providers/Microsoft.Authorization/roleAssignments"
"""Where the assignments are kept that were asked for."""


def assignments(azure: Azure, scope: str, query: Mapping[str, str]) -> list[Resource]:
    """Assignments at `scope` and above, of one principal where the query's $filter names one."""
    filtered = query.get("$filter", "")
    named = re.search(r"(?:principalId eq |assignedTo\()'([^']+)'", filtered, re.IGNORECASE)
    at_scope = scope.lower().rstrip("/")
    return [
        _resource(azure, *one)
        for one in _all(azure)
        if f"{at_scope}/".startswith(f"{one[2].lower()}/")
        and (not named or named[1].lower() == one[0].lower())
    ]


def _all(azure: Azure) -> Iterator[tuple[str, str, str]]:
    """Principal, role and scope of each."""
    settings = azure.settings
    me, workspace = azure.tokens.client_id, settings.guid
    yield me, DATA_SCIENTIST, settings.workspace_id
    yield me, ACR_PUSH, settings.registry_id
    yield me, SECRETS_OFFICER, settings.vault_id
    yield me, BLOB_CONTRIBUTOR, settings.storage_id
    yield workspace, CONTRIBUTOR, settings.group_id
    yield workspace, BLOB_CONTRIBUTOR, settings.storage_id
    yield workspace, VAULT_ADMINISTRATOR, settings.vault_id
    for endpoint in azure.store.children(f"{settings.workspace_id}/onlineEndpoints"):
        if principal := (endpoint.get("identity") or {}).get("principalId"):
            yield principal, ACR_PULL, settings.registry_id
            yield principal, BLOB_READER, settings.storage_id
            yield principal, METRICS_WRITER, settings.workspace_id
    for compute in azure.store.children(f"{settings.workspace_id}/computes"):
        if principal := (compute.get("identity") or {}).get("principalId"):
            yield principal, ACR_PULL, settings.registry_id

    for given in azure.store.children(GIVEN):
        properties = given["properties"]
        role = str(properties["roleDefinitionId"]).rpartition("/")[2]
        yield properties["principalId"], role, properties["scope"]


def assign(azure: Azure, scope: str, name: str, body: Mapping[str, Any]) -> Resource:
    """Keep an assignment that somebody makes; Azure makes none for a cluster's storage."""
    properties = {**body["properties"], "scope": scope}
    azure.store.put(f"{GIVEN}/{name}", {"properties": properties})
    role = str(properties["roleDefinitionId"]).rpartition("/")[2]
    return _resource(azure, str(properties["principalId"]), role, scope)


def _resource(azure: Azure, principal: str, role: str, scope: str) -> Resource:
    name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{principal} {role} {scope}"))
    kind = "Microsoft.Authorization/roleAssignments"
    return {
        "id": f"{scope}/providers/{kind}/{name}",
        "name": name,
        "type": kind,
        "properties": {
            "roleDefinitionId": f"/subscriptions/{azure.settings.subscription}"
            f"/providers/Microsoft.Authorization/roleDefinitions/{role}",
            "principalId": principal,
            "principalType": "ServicePrincipal",
            "scope": scope,
        },
    }

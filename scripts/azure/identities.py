"""Who pulls images and reads data on Azure, and whether they may: checked before anything bills.

    for sentence in check(cloud, recipe, "train"): …      # empty: nothing is missing

A job runs as its cluster's identity, a serverless one as the workspace's; an endpoint as its own,
to which Azure gives its roles when it makes it. Roles of groups and of scopes above count, and
wider roles count for narrower ones. It changes nothing, and says so where it may not look.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scripts.azure import retry
from scripts.azure.registry import API_VERSION as REGISTRY_API
from scripts.console import say

if TYPE_CHECKING:
    from scripts.azure.client import Cloud
    from train.recipe import Recipe

API_VERSION = "2022-04-01"
"""Of Microsoft.Authorization/roleAssignments."""
COMPUTE_API = "2023-08-01-preview"
ENDPOINT_API = "2022-02-01-preview"
DATASTORE_API = "2024-10-01-preview"
VAULT_API = "2023-07-01"
WORKSPACE_API = "2024-10-01-preview"

OWNER = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"
AI_ADMINISTRATOR = "b78c5d69-af96-48a3-bf8d-a8b4d589de94"
"""What Azure gives the identity of a new workspace."""


@dataclass(frozen=True, slots=True)
class Role:
    """A built-in role: learn.microsoft.com/azure/role-based-access-control/built-in-roles."""

    name: str
    ids: tuple[str, ...]
    """Its own id first, then those of roles that include it."""


PULL = Role(
    "AcrPull",
    (
        "7f951dda-4ed3-4680-a7ca-43fe172d538d",
        "8311e382-0749-4cb8-b61a-304f252e45ec",  # AcrPush
        "b93aa761-3e63-49ed-ac28-beffa264f7ac",  # Container Registry Repository Reader
        AI_ADMINISTRATOR,
        CONTRIBUTOR,
        OWNER,
    ),
)
# owner and contributor manage a storage account, but do not read what is in it
BLOB_WRITE = Role(
    "Storage Blob Data Contributor",
    (
        "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
        "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",  # Storage Blob Data Owner
    ),
)
BLOB_READ = Role(
    "Storage Blob Data Reader", ("2a2b9908-6ea1-4ae2-8e65-a410df84e7d1", *BLOB_WRITE.ids)
)
SECRETS = Role(
    "Key Vault Secrets User",
    (
        "4633458b-17de-408a-b874-0445c86b69e6",
        "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",  # Key Vault Secrets Officer
        "00482a5a-887f-4fb3-b363-3b7fe8e74483",  # Key Vault Administrator
    ),
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom Azure runs something as."""

    ids: tuple[str, ...]
    """Object ids; more than one where a resource has several identities."""
    who: str
    none: str = ""
    """What to do where it has no identity and needs one."""


def check(cloud: "Cloud", recipe: "Recipe", what: Literal["train", "deploy"]) -> list[str]:
    """What is missing for a job or a deployment: sentences, each with the command for it."""
    try:
        return _train(cloud, recipe) if what == "train" else _deploy(cloud, recipe)
    except retry.Refused as error:
        if error.status != 403:
            raise
        say(f"roles:  not checked, since you may not read them ({error.code or 403})")
        return []


def _train(cloud: "Cloud", recipe: "Recipe") -> list[str]:
    workspace = cloud.workspace
    puller = _job_principal(cloud, recipe)
    needs = []
    if workspace.registry_id and not _has_password(cloud):
        needs.append((PULL, workspace.registry_id, "pull the image"))
    if _by_identity(cloud):
        needs.append((BLOB_WRITE, workspace.storage_id, "write its outputs"))
    missing = _missing(cloud, puller, needs)
    if secret := recipe.cloud.hub_token_secret:
        missing += _vault(cloud, _reader(cloud, recipe, puller), secret)
    return missing


def _deploy(cloud: "Cloud", recipe: "Recipe") -> list[str]:
    from scripts.azure import names

    name = recipe.cloud.endpoint or names.endpoint_name(recipe, cloud.workspace.guid)
    try:
        found = cloud.rest.get(f"{cloud.workspace.id}/onlineEndpoints/{name}", ENDPOINT_API)
    except retry.NotFound:
        return []  # Azure gives a new endpoint's own identity both roles
    principal = Principal(_principals(found), f"endpoint {name}")
    return _missing(
        cloud,
        principal,
        [
            (PULL, cloud.workspace.registry_id, "pull the image"),
            (BLOB_READ, cloud.workspace.storage_id, "read the model"),
        ],
    )


def check_storage(cloud: "Cloud", recipe: "Recipe") -> list[str]:
    """What a job lacks that runs Azure's own image on a cluster of the recipe, as the cluster.

    Sentences, each with the command for it. Where the workspace's storage is read with its key,
    a missing role is only said.
    """
    if not recipe.cloud.compute:
        return []
    try:
        principal = _job_principal(cloud, recipe)
        if not principal.ids:
            return [
                f"{principal.who} has no identity to read rows and write the model with: "
                f"{principal.none}"
            ]
        storage = cloud.workspace.storage_id
        lacking = _missing(cloud, principal, [(BLOB_WRITE, storage, "read rows and write a model")])
        if lacking and not _by_identity(cloud):
            for sentence in lacking:
                say(f"access: {sentence}; the workspace's storage key stands in for it")
            return []
        return lacking
    except retry.Refused as error:
        if error.status != 403:
            raise
        say(f"roles:  not checked, since you may not read them ({error.code or 403})")
        return []


def _job_principal(cloud: "Cloud", recipe: "Recipe") -> Principal:
    """Who pulls the image and writes the outputs."""
    workspace, name = cloud.workspace, recipe.cloud.compute
    if not name:
        own = (workspace.principal_id,) if workspace.principal_id else ()
        return Principal(own, f"workspace {workspace.name}")
    where = f"--resource-group {workspace.resource_group} --workspace-name {workspace.name}"
    try:
        found = cloud.rest.get(f"{workspace.id}/computes/{name}", COMPUTE_API)
    except retry.NotFound:
        size = recipe.cloud.instance_type
        make = f"az ml compute create --file azure/compute.yml --name {name} --size {size} {where}"
        return Principal((), f"compute {name} (not made yet)", make)
    give = f"az ml compute update --name {name} --identity-type SystemAssigned {where}"
    return Principal(_principals(found), f"compute {name}", give)


def _reader(cloud: "Cloud", recipe: "Recipe", puller: Principal) -> Principal:
    """Who reads the hub token: a cluster's identity; serverless has user-assigned ones only."""
    if recipe.cloud.compute or cloud.workspace.rehearsal:
        return puller
    workspace = cloud.rest.get(cloud.workspace.id, WORKSPACE_API)
    assigned = {"identity": {**(workspace.get("identity") or {}), "principalId": None}}
    return Principal(
        _principals(assigned),
        "a serverless job",
        "assign a user-assigned identity to the workspace, or name a cluster in cloud.compute",
    )


def _missing(
    cloud: "Cloud", principal: Principal, needs: Iterable[tuple[Role, str, str]]
) -> list[str]:
    sentences = []
    for role, scope, purpose in needs:
        if scope and principal.ids and not _has(cloud, principal, role, scope):
            mend = assign(principal, role, scope)
            sentences.append(f"{principal.who} may not {purpose} in {_last(scope)}: {mend}")
    return sentences


def assign(principal: Principal, role: Role, scope: str) -> str:
    """The command that gives the role."""
    return (
        f"az role assignment create --role '{role.name}' --assignee-object-id {principal.ids[0]} "
        f"--assignee-principal-type ServicePrincipal --scope {scope}"
    )


def _has(cloud: "Cloud", principal: Principal, role: Role, scope: str) -> bool:
    """Whether any of the identities has the role at the scope or above, by itself or a group."""
    for object_id in principal.ids:
        found = cloud.rest.all(
            f"{scope}/providers/Microsoft.Authorization/roleAssignments",
            API_VERSION,
            **{"$filter": f"atScope() and assignedTo('{object_id}')"},
        )
        given = {one["properties"]["roleDefinitionId"].rpartition("/")[2].lower() for one in found}
        if given & set(role.ids):
            return True
    return False


def _vault(cloud: "Cloud", principal: Principal, secret: str) -> list[str]:
    """A vault knows either roles or, in its older form, policies of its own."""
    if not principal.ids:
        return [
            f"{principal.who} has no identity to read the secret {secret} with: {principal.none}"
        ]
    scope = cloud.workspace.key_vault_id
    if not scope:
        return []  # vault.secret_uri says so
    properties = cloud.rest.get(scope, VAULT_API)["properties"]
    if properties.get("enableRbacAuthorization"):
        return _missing(cloud, principal, [(SECRETS, scope, f"read the secret {secret}")])
    for policy in properties.get("accessPolicies", []):
        allowed = {one.lower() for one in policy["permissions"].get("secrets", [])}
        if policy["objectId"] in principal.ids and allowed & {"get", "all"}:
            return []
    return [
        f"{principal.who} may not read the secret {secret} in {_last(scope)}: az keyvault "
        f"set-policy --name {_last(scope)} --object-id {principal.ids[0]} --secret-permissions get"
    ]


def _has_password(cloud: "Cloud") -> bool:
    """Whether the registry has an admin user, with whose password Azure ML's nodes pull."""
    found = cloud.rest.get(cloud.workspace.registry_id, REGISTRY_API)
    return bool(found["properties"].get("adminUserEnabled"))


def _by_identity(cloud: "Cloud") -> bool:
    """Whether the default datastore holds no key, so that jobs use their own identity."""
    found = cloud.rest.get(f"{cloud.workspace.id}/datastores/workspaceblobstore", DATASTORE_API)
    return bool(found["properties"]["credentials"]["credentialsType"] == "None")


def _principals(resource: Any) -> tuple[str, ...]:
    """Object ids of a resource's system- and user-assigned identities."""
    identity = resource.get("identity") or {}
    assigned = (identity.get("userAssignedIdentities") or {}).values()
    every = [identity.get("principalId"), *(one.get("principalId") for one in assigned)]
    return tuple(one for one in every if one)


def _last(arm_id: str) -> str:
    return arm_id.rpartition("/")[2]

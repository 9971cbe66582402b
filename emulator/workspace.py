"""The workspace and what belongs to it: datastores, registry, vault, roles, sizes and quota.

All of it is there from the start (`found`). Roles are listed as Azure gives them automatically to
the workspace's and the endpoints' identities; nothing here refuses for lack of a role.
"""

from collections.abc import Mapping
from typing import Any

from emulator.azure import Azure
from emulator.http import API, ARM, WORKSPACE, Refusal, Reply, Request, Route
from emulator.machines import LIMIT, MACHINES
from emulator.roles import assign, assignments


def found(azure: Azure) -> None:
    """Make the workspace, its datastores and their containers."""
    settings = azure.settings
    azure.store.put(
        settings.workspace_id,
        {
            "location": settings.location,
            "kind": "Default",
            "tags": {"homeport-rehearsal": settings.mode},
            "identity": {
                "type": "SystemAssigned",
                "principalId": settings.guid,
                "tenantId": settings.tenant,
            },
            "sku": {"name": "Basic", "tier": "Basic"},
            "properties": {
                "friendlyName": settings.workspace,
                "description": "",
                "provisioningState": "Succeeded",
                "workspaceId": settings.guid,
                "tenantId": settings.tenant,
                "discoveryUrl": f"{settings.api}/discovery",
                "mlFlowTrackingUri": f"azureml://{settings.api.removeprefix('https://')}"
                f"/mlflow/v1.0{settings.workspace_id}",
                "storageAccount": settings.storage_id,
                "containerRegistry": settings.registry_id,
                "keyVault": settings.vault_id,
                "publicNetworkAccess": "Enabled",
                "hbiWorkspace": False,
            },
        },
    )
    for name, container in (
        ("workspaceblobstore", settings.blob_container),
        ("workspaceartifactstore", settings.artifact_container),
    ):
        azure.storage.create_container(container)
        azure.store.put(
            f"{settings.workspace_id}/datastores/{name}",
            {
                "properties": {
                    "datastoreType": "AzureBlob",
                    "isDefault": name == "workspaceblobstore",
                    "credentials": {"credentialsType": "AccountKey"},
                    "accountName": settings.account,
                    "containerName": container,
                    "endpoint": "core.windows.net",
                    "protocol": "https",
                    "serviceDataAccessAuthIdentity": "WorkspaceSystemAssignedIdentity",
                    "subscriptionId": settings.subscription,
                    "resourceGroup": settings.resource_group,
                }
            },
        )


class Workspaces:
    """Answers for the workspace and what belongs to it."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    def get(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET of a resource that the store holds."""
        resource = self._azure.store.get(request.path)
        if resource is None:
            raise _not_found(request.path)
        return Reply(200, resource)

    def list(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET workspaces, of the group or the subscription."""
        settings = self._azure.settings
        group = groups["group"] or settings.resource_group
        ours = group.lower() == settings.resource_group.lower()
        return Reply(200, {"value": [self._azure.store.get(settings.workspace_id)] if ours else []})

    def datastores(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET datastores, with the filters isDefault and names."""
        found = self._azure.store.children(request.path)
        if request.query.get("isDefault", "").lower() == "true":
            found = [one for one in found if one["properties"]["isDefault"]]
        if names := request.query.get("names"):
            found = [one for one in found if one["name"] in names.split(",")]
        return Reply(200, {"value": found})

    def put_datastore(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """PUT of a datastore on the account: another container, or another way to log in."""
        settings, properties = self._azure.settings, request.json()["properties"]
        wanted = (properties.get("datastoreType"), properties.get("accountName"))
        if wanted != ("AzureBlob", settings.account):
            raise Refusal(
                400, "UserError", f"Only the account {settings.account} has datastores here."
            )
        new = self._azure.store.get(request.path) is None
        kept = {"isDefault": False, "endpoint": "core.windows.net", "protocol": "https"}
        credentials = {"credentialsType": properties["credentials"]["credentialsType"]}
        resource = self._azure.store.put(
            request.path,
            {"properties": {**kept, **properties, "credentials": credentials}},
        )
        return Reply(201 if new else 200, resource)

    def list_secrets(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST listSecrets: a SAS, whatever the datastore's own credential is (emulation.md 4)."""
        datastore = self._azure.store.get(request.path.removesuffix("/listSecrets"))
        if datastore is None:
            raise _not_found(request.path)
        if datastore["properties"]["credentials"]["credentialsType"] == "None":
            raise Refusal(400, "UserError", "No secrets for credentials of type None.")
        fault = self._azure.faults.take("expired_sas", path=request.path)
        return Reply(
            200,
            {"secretsType": "Sas", "sasToken": f"?{self._azure.storage.sas(expired=bool(fault))}"},
        )

    def discovery(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET discoveryUrl: the region's hosts."""
        api = self._azure.settings.api
        services = ("api", "experimentation", "history", "hyperdrive", "modelmanagement")
        return Reply(200, {**dict.fromkeys(services, api), "studio": "https://ml.azure.com"})

    def sizes(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET vmSizes."""
        return Reply(
            200,
            {
                "value": [
                    {
                        "name": machine.name,
                        "family": machine.family,
                        "vCPUs": machine.cores,
                        "gpus": machine.gpus,
                        "memoryGB": float(machine.memory_gb),
                        "osVhdSizeMB": 1047552,
                        "maxResourceVolumeMB": 28672,
                        "lowPriorityCapable": True,
                        "premiumIO": True,
                        "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
                    }
                    for machine in MACHINES
                ]
            },
        )

    def usages(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET usages: cores by quota family."""
        families = dict.fromkeys(machine.family for machine in MACHINES)
        named = {family: f"{family} Cluster Dedicated vCPUs" for family in families}
        named["lowPriorityCores"] = "Total Cluster Low Priority Regional vCPUs"
        return Reply(
            200,
            {
                "value": [
                    {
                        "id": f"{request.path}/{family}",
                        "type": "Microsoft.MachineLearningServices/locations/usages",
                        "unit": "Count",
                        "currentValue": 0,
                        "limit": LIMIT,
                        "name": {"value": family, "localizedValue": name},
                    }
                    for family, name in named.items()
                ]
            },
        )

    def quotas(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET quotas: none were given to single workspaces."""
        return Reply(200, {"value": []})

    def registry(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET the container registry."""
        settings = self._azure.settings
        return self._belonging(
            request,
            settings.registry_id,
            {"loginServer": settings.login_server, "adminUserEnabled": False},
            {"sku": {"name": "Standard", "tier": "Standard"}},
        )

    def vault(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET the key vault."""
        settings = self._azure.settings
        properties = {
            "vaultUri": f"https://{settings.vault}/",
            "tenantId": settings.tenant,
            "enableRbacAuthorization": True,
            "sku": {"family": "A", "name": "standard"},
        }
        return self._belonging(request, settings.vault_id, properties)

    def account(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET the storage account."""
        settings = self._azure.settings
        blob = f"https://{settings.account}.blob.core.windows.net/"
        properties = {"primaryEndpoints": {"blob": blob}, "allowSharedKeyAccess": True}
        more = {"kind": "StorageV2", "sku": {"name": "Standard_LRS", "tier": "Standard"}}
        return self._belonging(request, settings.storage_id, properties, more)

    def roles(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET roleAssignments at or above a scope, filtered by principalId or assignedTo."""
        return Reply(200, {"value": assignments(self._azure, groups["scope"], request.query)})

    def put_role(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """PUT of a role assignment, as who owns the group gives it to an identity."""
        return Reply(201, assign(self._azure, groups["scope"], groups["name"], request.json()))

    def _belonging(
        self,
        request: Request,
        arm_id: str,
        properties: Mapping[str, Any],
        more: Mapping[str, Any] | None = None,
    ) -> Reply:
        if request.path.lower() != arm_id.lower():
            raise _not_found(request.path)
        provider = arm_id.split("/providers/")[1].split("/")
        return Reply(
            200,
            {
                "id": arm_id,
                "name": provider[-1],
                "type": "/".join(provider[:2]),
                "location": self._azure.settings.location,
                "tags": {},
                "properties": {"provisioningState": "Succeeded", **properties},
                **(more or {}),
            },
        )


def _not_found(path: str) -> Refusal:
    return Refusal(
        404,
        "ResourceNotFound",
        f"The Resource '{path.partition('/providers/')[2]}' was not found.",
    )


def routes(azure: Azure) -> list[Route]:
    workspaces = Workspaces(azure)
    providers = r"/subscriptions/[^/]+(/resourceGroups/(?P<group>[^/]+))?/providers"
    ml = rf"{providers}/Microsoft\.MachineLearningServices"
    store = rf"{WORKSPACE}/datastores/(?P<name>[^/]+)"
    return [
        Route("GET", ARM, WORKSPACE, workspaces.get),
        Route("GET", ARM, rf"{ml}/workspaces", workspaces.list),
        Route("GET", ARM, rf"{WORKSPACE}/datastores", workspaces.datastores),
        Route("GET", ARM, store, workspaces.get),
        Route("PUT", ARM, store, workspaces.put_datastore),
        Route("POST", ARM, rf"{store}/listSecrets", workspaces.list_secrets),
        Route("GET", API, r"/discovery", workspaces.discovery),
        Route("GET", ARM, rf"{ml}/locations/[^/]+/vmSizes", workspaces.sizes),
        Route("GET", ARM, rf"{ml}/locations/[^/]+/usages", workspaces.usages),
        Route("GET", ARM, rf"{ml}/locations/[^/]+/quotas", workspaces.quotas),
        Route(
            "GET",
            ARM,
            rf"{providers}/Microsoft\.ContainerRegistry/registries/[^/]+",
            workspaces.registry,
        ),
        Route("GET", ARM, rf"{providers}/Microsoft\.KeyVault/vaults/[^/]+", workspaces.vault),
        Route(
            "GET", ARM, rf"{providers}/Microsoft\.Storage/storageAccounts/[^/]+", workspaces.account
        ),
        Route(
            "GET",
            ARM,
            r"(?P<scope>/subscriptions/.+)/providers/Microsoft\.Authorization/roleAssignments",
            workspaces.roles,
        ),
        Route(
            "PUT",
            ARM,
            r"(?P<scope>/subscriptions/.+)/providers/Microsoft\.Authorization/roleAssignments"
            r"/(?P<name>[^/]+)",
            workspaces.put_role,
        ),
    ]

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scripts.azure.identities import (
    BLOB_READ,
    BLOB_WRITE,
    CONTRIBUTOR,
    PULL,
    SECRETS,
    check,
    check_storage,
)
from scripts.azure.retry import NotFound, Refused
from scripts.errors import CloudError
from tests import local_azure as local
from train.recipe import CloudConfig, DataConfig, ModelConfig, Recipe

GROUP = "/subscriptions/s/resourceGroups/g/providers"
REGISTRY = f"{GROUP}/Microsoft.ContainerRegistry/registries/homes"
VAULT = f"{GROUP}/Microsoft.KeyVault/vaults/homes-vault"
STORAGE = f"{GROUP}/Microsoft.Storage/storageAccounts/homes"
WORKSPACE = f"{GROUP}/Microsoft.MachineLearningServices/workspaces/w"
DATASTORE = f"{WORKSPACE}/datastores/workspaceblobstore"
OWN, NODE, USER, SERVING = "own-id", "node-id", "user-id", "serving-id"


def recipe(**values: Any) -> Recipe:
    return Recipe(
        name="tiny-ja",
        model=ModelConfig(base="tiny"),
        data=DataConfig(train="rows.jsonl"),
        cloud=CloudConfig(**values),
    )


class Azure:
    """Answers as the management plane does, from `resources` and `roles`."""

    def __init__(self) -> None:
        self.roles: set[tuple[str, str, str]] = set()
        """Principal, role definition's id, scope."""
        self.resources: dict[str, Any] = {
            REGISTRY: {"properties": {"adminUserEnabled": False}},
            VAULT: {"properties": {"enableRbacAuthorization": True}},
            DATASTORE: {"properties": {"credentials": {"credentialsType": "AccountKey"}}},
            WORKSPACE: {"identity": {"type": "SystemAssigned", "principalId": OWN}},
        }
        self.refuses = 0

    def get(self, path: str, api_version: str) -> Any:
        if path not in self.resources:
            raise NotFound("not there", 404)
        return self.resources[path]

    def all(self, path: str, api_version: str, **query: str) -> list[Any]:
        if self.refuses:
            raise Refused("refused", self.refuses, "AuthorizationFailed")
        assert api_version == "2022-04-01"
        scope, _, rest = path.partition("/providers/Microsoft.Authorization/")
        assert rest == "roleAssignments"
        asked = re.fullmatch(r"atScope\(\) and assignedTo\('(.+)'\)", query["$filter"])
        assert asked
        definitions = "/subscriptions/s/providers/Microsoft.Authorization/roleDefinitions"
        return [
            {"properties": {"roleDefinitionId": f"{definitions}/{role}"}}
            for principal, role, at in self.roles
            if principal == asked[1] and scope.startswith(at)
        ]

    def cloud(self) -> Any:
        workspace = SimpleNamespace(
            id=WORKSPACE,
            name="w",
            resource_group="g",
            guid="11111111-2222-3333-4444-555555555555",
            principal_id=OWN,
            registry_id=REGISTRY,
            key_vault_id=VAULT,
            storage_id=STORAGE,
            rehearsal="",
        )
        return cast("Any", SimpleNamespace(workspace=workspace, rest=self))

    def cluster(self, **identity: Any) -> None:
        self.resources[f"{WORKSPACE}/computes/gpus"] = {"identity": identity or None}


@pytest.fixture
def azure() -> Azure:
    return Azure()


@pytest.mark.parametrize("scope", [REGISTRY, "/subscriptions/s/resourceGroups/g"])
@pytest.mark.parametrize("role", PULL.ids)
def test_a_role_that_includes_the_pull_counts_at_the_scope_and_above(
    azure: Azure, role: str, scope: str
) -> None:
    azure.roles = {(OWN, role, scope)}
    assert check(azure.cloud(), recipe(), "train") == []


def test_a_missing_role_is_a_sentence_with_the_whole_command(azure: Azure) -> None:
    assert check(azure.cloud(), recipe(), "train") == [
        "workspace w may not pull the image in homes: az role assignment create --role 'AcrPull' "
        f"--assignee-object-id {OWN} --assignee-principal-type ServicePrincipal --scope {REGISTRY}"
    ]


def test_a_registry_with_an_admin_user_needs_no_role_for_jobs(azure: Azure) -> None:
    azure.resources[REGISTRY]["properties"]["adminUserEnabled"] = True
    assert check(azure.cloud(), recipe(), "train") == []


def test_storage_by_identity_needs_a_role_that_contributor_does_not_include(azure: Azure) -> None:
    azure.resources[DATASTORE]["properties"]["credentials"]["credentialsType"] = "None"
    azure.roles = {(OWN, CONTRIBUTOR, "/subscriptions/s")}
    (sentence,) = check(azure.cloud(), recipe(), "train")
    assert f"'{BLOB_WRITE.name}'" in sentence
    assert STORAGE in sentence
    azure.roles.add((OWN, BLOB_WRITE.ids[0], STORAGE))
    assert check(azure.cloud(), recipe(), "train") == []


def test_a_cluster_pulls_and_reads_secrets_as_itself(azure: Azure) -> None:
    azure.cluster(type="SystemAssigned", principalId=NODE)
    asked = recipe(compute="gpus", hub_token_secret="hub-token")
    azure.roles = {(OWN, CONTRIBUTOR, "/subscriptions/s")}
    pull, secret = check(azure.cloud(), asked, "train")
    assert f"--assignee-object-id {NODE}" in pull
    assert "'Key Vault Secrets User'" in secret
    azure.roles = {(NODE, PULL.ids[0], REGISTRY), (NODE, SECRETS.ids[0], VAULT)}
    assert check(azure.cloud(), asked, "train") == []


def test_any_of_a_clusters_identities_may_have_the_role(azure: Azure) -> None:
    azure.cluster(userAssignedIdentities={"/a": {"principalId": NODE}, "/b": {"principalId": USER}})
    azure.roles = {(USER, PULL.ids[0], REGISTRY)}
    assert check(azure.cloud(), recipe(compute="gpus"), "train") == []


def test_a_secret_needs_an_identity_that_a_serverless_job_has_not_by_itself(azure: Azure) -> None:
    azure.roles = {(OWN, CONTRIBUTOR, "/subscriptions/s"), (OWN, SECRETS.ids[0], VAULT)}
    asked = recipe(hub_token_secret="hub-token")
    (sentence,) = check(azure.cloud(), asked, "train")
    assert "user-assigned identity" in sentence
    azure.resources[WORKSPACE]["identity"]["userAssignedIdentities"] = {"/a": {"principalId": USER}}
    (sentence,) = check(azure.cloud(), asked, "train")
    assert f"--assignee-object-id {USER}" in sentence
    azure.roles.add((USER, SECRETS.ids[0], VAULT))
    assert check(azure.cloud(), asked, "train") == []


def test_a_cluster_that_is_to_be_made_cannot_read_a_secret_yet(azure: Azure) -> None:
    asked = recipe(compute="gpus", hub_token_secret="hub-token")
    (sentence,) = check(azure.cloud(), asked, "train")
    assert "az ml compute create --file azure/compute.yml --name gpus" in sentence
    assert check(azure.cloud(), recipe(compute="gpus"), "train") == []


def test_a_cluster_without_identity_is_told_how_to_get_one(azure: Azure) -> None:
    azure.cluster()
    (sentence,) = check(
        azure.cloud(), recipe(compute="gpus", hub_token_secret="hub-token"), "train"
    )
    assert "az ml compute update --name gpus --identity-type SystemAssigned" in sentence


@pytest.mark.parametrize("permission", ["get", "Get", "all"])
def test_a_vault_of_the_older_form_knows_policies(azure: Azure, permission: str) -> None:
    azure.cluster(principalId=NODE)
    azure.roles = {(NODE, PULL.ids[0], REGISTRY)}
    asked = recipe(compute="gpus", hub_token_secret="hub-token")
    azure.resources[VAULT]["properties"] = {"accessPolicies": []}
    (sentence,) = check(azure.cloud(), asked, "train")
    assert f"az keyvault set-policy --name homes-vault --object-id {NODE}" in sentence
    policy = {"objectId": NODE, "permissions": {"secrets": [permission]}}
    azure.resources[VAULT]["properties"]["accessPolicies"] = [policy]
    assert check(azure.cloud(), asked, "train") == []


def test_a_new_endpoint_gets_its_roles_from_azure(azure: Azure) -> None:
    assert check(azure.cloud(), recipe(), "deploy") == []


def test_an_endpoint_that_lost_its_roles_is_named(azure: Azure) -> None:
    azure.resources[f"{WORKSPACE}/onlineEndpoints/answers"] = {"identity": {"principalId": SERVING}}
    pull, read = check(azure.cloud(), recipe(endpoint="answers"), "deploy")
    assert pull.startswith("endpoint answers may not pull the image in homes: ")
    assert f"'{BLOB_READ.name}' --assignee-object-id {SERVING}" in read


def test_who_may_not_read_roles_is_told_that_nothing_was_checked(
    azure: Azure, capsys: pytest.CaptureFixture[str]
) -> None:
    azure.refuses = 403
    assert check(azure.cloud(), recipe(), "train") == []
    assert "not checked" in capsys.readouterr().err


def test_another_failure_is_no_permission(azure: Azure) -> None:
    azure.refuses = 400
    with pytest.raises(CloudError):
        check(azure.cloud(), recipe(), "train")


@pytest.mark.slow
def test_the_local_azure_has_the_roles_that_azure_gives(tmp_path: Path) -> None:
    from scripts.azure.client import connect

    with local.bare_azure(tmp_path) as server, local.environment(server):
        cloud = connect()
        with_secret = recipe(hub_token_secret="hub-token")
        assert check(cloud, recipe(), "train") == []
        assert check(cloud, with_secret, "train") == []
        assert check(cloud, recipe(), "deploy") == []
        stranger = replace(cloud, workspace=replace(cloud.workspace, principal_id="stranger"))
        assert len(check(stranger, with_secret, "train")) == 2
        assert server.report()["problems"] == []


def test_azures_own_code_runs_as_the_cluster_which_needs_an_identity(azure: Azure) -> None:
    assert check_storage(azure.cloud(), recipe()) == []
    azure.cluster()
    (sentence,) = check_storage(azure.cloud(), recipe(compute="gpus"))
    assert sentence.startswith("compute gpus has no identity to read rows and write the model")
    assert "az ml compute update --name gpus --identity-type SystemAssigned" in sentence


def test_the_cluster_needs_the_storage_role_where_no_key_stands_in_for_it(
    azure: Azure, capsys: pytest.CaptureFixture[str]
) -> None:
    azure.cluster(principalId=NODE)
    assert check_storage(azure.cloud(), recipe(compute="gpus")) == []
    assert "the workspace's storage key stands in for it" in capsys.readouterr().err
    azure.resources[DATASTORE]["properties"]["credentials"]["credentialsType"] = "None"
    (sentence,) = check_storage(azure.cloud(), recipe(compute="gpus"))
    assert "may not read rows and write a model" in sentence
    assert f"'{BLOB_WRITE.name}' --assignee-object-id {NODE}" in sentence
    azure.roles = {(NODE, BLOB_WRITE.ids[0], STORAGE)}
    assert check_storage(azure.cloud(), recipe(compute="gpus")) == []


def test_roles_that_may_not_be_read_hold_up_no_job(azure: Azure) -> None:
    azure.cluster(principalId=NODE)
    azure.refuses = 403
    assert check_storage(azure.cloud(), recipe(compute="gpus")) == []

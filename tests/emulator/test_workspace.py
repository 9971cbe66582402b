"""The workspace and what belongs to it."""

from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.roles import ACR_PULL, BLOB_READER
from emulator.server import Server
from tests.local_azure import environment, session

ARM = "https://management.azure.com"


def get(server: Server, path: str, version: str = "2024-10-01-preview", **query: str) -> Any:
    """The JSON of an answer, which must be 200."""
    answer = session(server).get(f"{ARM}{path}", params={"api-version": version, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def secrets(server: Server, datastore: str) -> Any:
    """The answer to listSecrets."""
    path = f"{server.azure.settings.workspace_id}/datastores/{datastore}/listSecrets"
    return session(server).post(
        f"{ARM}{path}?api-version=2024-10-01-preview",
        json={"expirableSecret": True, "expireAfterHours": 8},
    )


def test_the_workspace_says_that_it_is_a_rehearsal_and_what_belongs_to_it(bare: Server) -> None:
    settings = bare.azure.settings
    found = get(bare, settings.workspace_id)
    assert found["tags"] == {"homeport-rehearsal": "host"}
    assert found["identity"]["principalId"] == settings.guid
    for key, kind, version in (
        ("containerRegistry", "loginServer", "2023-07-01"),
        ("keyVault", "vaultUri", "2023-07-01"),
        ("storageAccount", "primaryEndpoints", "2023-01-01"),
    ):
        assert kind in get(bare, found["properties"][key], version)["properties"]
    assert bare.report()["problems"] == []


@pytest.mark.parametrize(("group", "names"), [("rehearsal", ["homeport"]), ("other", [])])
def test_workspaces_are_listed_by_group(bare: Server, group: str, names: list[str]) -> None:
    path = f"/subscriptions/{bare.azure.settings.subscription}/resourceGroups/{group}"
    kind = "providers/Microsoft.MachineLearningServices/workspaces"
    assert [one["name"] for one in get(bare, f"{path}/{kind}")["value"]] == names


def test_one_datastore_is_the_default(bare: Server) -> None:
    path = f"{bare.azure.settings.workspace_id}/datastores"
    everything = [one["name"] for one in get(bare, path)["value"]]
    default = [one["name"] for one in get(bare, path, isDefault="true")["value"]]
    assert (everything, default) == (
        ["workspaceblobstore", "workspaceartifactstore"],
        ["workspaceblobstore"],
    )


def test_secrets_are_a_sas_that_the_journal_does_not_keep(bare: Server) -> None:
    body = secrets(bare, "workspaceblobstore").json()
    assert body["secretsType"] == "Sas"
    assert "sig=secret" in body["sasToken"]
    text = (bare.azure.settings.folder / "journal" / "requests.jsonl").read_text()
    assert "sig=secret" not in text
    assert secrets(bare, "nothing").status_code == 404


def test_a_sas_can_have_ended_when_it_is_handed_out(bare: Server) -> None:
    bare.azure.faults.add(Fault(kind="expired_sas", path="workspaceblobstore"))
    tokens = [secrets(bare, "workspaceblobstore").json()["sasToken"] for _ in range(2)]
    assert ["se=2000" in token for token in tokens] == [True, False]


def test_a_datastore_without_credentials_has_no_secrets(bare: Server) -> None:
    path = f"{bare.azure.settings.workspace_id}/datastores/mine?api-version=2024-10-01-preview"
    properties = {
        "datastoreType": "AzureBlob",
        "accountName": bare.azure.settings.account,
        "containerName": "mine",
        "credentials": {"credentialsType": "None"},
    }
    client = session(bare)
    made = [client.put(f"{ARM}{path}", json={"properties": properties}) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 200]
    assert secrets(bare, "mine").status_code == 400
    properties["accountName"] = "elsewhere"
    assert client.put(f"{ARM}{path}", json={"properties": properties}).status_code == 400
    assert bare.report()["problems"] == []


@pytest.mark.parametrize("what", ["vmSizes", "usages", "quotas"])
def test_sizes_and_quota_are_those_of_the_region(bare: Server, what: str) -> None:
    path = f"/subscriptions/{bare.azure.settings.subscription}/providers"
    path += f"/Microsoft.MachineLearningServices/locations/eastus/{what}"
    found = get(bare, path, "2023-08-01-preview")["value"]
    assert bool(found) is (what != "quotas")
    assert bare.report()["problems"] == []


def test_an_endpoints_identity_has_the_roles_that_azure_gives(bare: Server) -> None:
    settings = bare.azure.settings
    bare.azure.store.put(
        f"{settings.workspace_id}/onlineEndpoints/e",
        {"identity": {"principalId": "the-endpoint"}, "properties": {}},
    )

    def roles(scope: str, principal: str) -> list[str]:
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
        found = get(bare, path, "2022-04-01", **{"$filter": f"assignedTo('{principal}')"})
        ids = [one["properties"]["roleDefinitionId"] for one in found["value"]]
        return [one.rpartition("/")[2] for one in ids]

    assert roles(settings.registry_id, "the-endpoint") == [ACR_PULL]
    assert roles(settings.storage_id, "the-endpoint") == [BLOB_READER]
    assert roles(settings.registry_id, "nobody") == []
    assert len(roles(settings.storage_id, settings.guid)) == 2  # one is the group's


def test_a_machine_says_its_gpus_and_its_family(bare: Server) -> None:
    path = f"/subscriptions/{bare.azure.settings.subscription}/providers"
    path += "/Microsoft.MachineLearningServices/locations/eastus/"
    sizes = {one["name"]: one for one in get(bare, f"{path}vmSizes", "2023-08-01-preview")["value"]}
    assert sizes["Standard_NC96ads_A100_v4"]["gpus"] == 4
    assert sizes["Standard_NC4as_T4_v3"]["memoryGB"] == 28.0
    usages = get(bare, f"{path}usages", "2023-08-01-preview")["value"]
    assert {size["family"] for size in sizes.values()} < {one["name"]["value"] for one in usages}


def test_a_role_that_is_given_is_held(bare: Server) -> None:
    settings = bare.azure.settings
    roles = f"{settings.storage_id}/providers/Microsoft.Authorization/roleAssignments"
    definition = f"/subscriptions/x/providers/Microsoft.Authorization/roleDefinitions/{BLOB_READER}"
    body = {"properties": {"roleDefinitionId": definition, "principalId": "the-cluster"}}
    made = session(bare).put(f"{ARM}{roles}/one?api-version=2022-04-01", json=body)
    assert made.status_code == 201, made.text
    mine = {"$filter": "principalId eq 'the-cluster'"}
    (found,) = get(bare, roles, "2022-04-01", **mine)["value"]
    assert found["properties"]["roleDefinitionId"].endswith(BLOB_READER)
    above = f"{settings.group_id}/providers/Microsoft.Authorization/roleAssignments"
    assert get(bare, above, "2022-04-01", **mine)["value"] == []
    assert bare.report()["problems"] == []


@pytest.mark.slow
def test_the_sdk_finds_its_way_and_uploads(local_azure: Server, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": []}\n' * 100)
    with environment(local_azure):
        made = use_sdk(local_azure, rows)
    blob = made.partition("/paths/")[2]
    container = local_azure.azure.settings.blob_container
    assert local_azure.azure.storage.read(container, blob) == rows.read_bytes()


def use_sdk(server: Server, rows: Path) -> str:
    """Look around as a client, and upload a data asset; its path."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Data
    from azure.identity import DefaultAzureCredential

    settings = server.azure.settings
    with DefaultAzureCredential() as credential:
        client = MLClient(
            credential,
            settings.subscription,
            settings.resource_group,
            settings.workspace,
            show_progress=False,
        )
        assert client.workspaces.get(settings.workspace).location == "eastus"
        assert client.datastores.get_default().account_name == settings.account
        assert [one.name for one in client.workspaces.list()] == [settings.workspace]
        sizes = [size.name for size in client.compute.list_sizes()]
        assert "Standard_NC40ads_H100_v5" in sizes
        assert next(iter(client.compute.list_usage())).limit
        data = Data(name="core-rows", version="1", type="uri_file", path=str(rows))
        return str(client.data.create_or_update(data).path)

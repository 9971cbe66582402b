"""Assets as the control plane and the data plane tell of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from tests.emulator.asking import CODES, DATA, MODELS, Client, client


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Client]:
    with client(tmp_path) as asking:
        yield asking


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "codes": (CODES, {"codeUri": "https://x.blob.core.windows.net/c/src", "isAnonymous": True}),
    "data": (DATA, {"dataUri": "azureml://datastores/d/paths/a", "dataType": "uri_file"}),
    "environments": (DATA, {"image": "x.azurecr.io/a@sha256:1"}),
    "models": (MODELS, {"modelUri": "azureml://datastores/d/paths/m", "modelType": "custom_model"}),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_version_is_made_once_and_found_again(azure: Client, kind: str) -> None:
    api, properties = BODIES[kind]
    path = f"{kind}/mine/versions/1"

    made = azure.ask("PUT", path, {"properties": properties}, api=api, expect=201)
    again = azure.ask("PUT", path, {"properties": {**properties, "tags": {"a": "b"}}}, api=api)

    assert made["systemData"]["lastModifiedAt"]
    assert again["properties"]["tags"] == {"a": "b"}
    assert azure.ask("GET", path, api=api)["properties"] == again["properties"]
    assert [v["name"] for v in azure.ask("GET", f"{kind}/mine/versions", api=api)["value"]] == ["1"]


@pytest.mark.parametrize("kind", BODIES)
def test_what_a_version_is_made_of_stays(azure: Client, kind: str) -> None:
    api, properties = BODIES[kind]
    azure.ask("PUT", f"{kind}/mine/versions/1", {"properties": properties}, api=api, expect=201)
    member = next(iter(properties))
    other = {"properties": {**properties, member: f"{properties[member]}2"}}

    answer = azure.ask("PUT", f"{kind}/mine/versions/1", other, api=api, expect=400)

    assert "cannot be updated" in answer["error"]["message"]


@pytest.mark.parametrize("kind", ["data", "environments", "models"])
def test_a_name_knows_its_latest_and_its_next_version(azure: Client, kind: str) -> None:
    api, properties = BODIES[kind]
    for version in ("1", "2", "10"):
        body = {"properties": properties}
        azure.ask("PUT", f"{kind}/mine/versions/{version}", body, api=api, expect=201)

    container = azure.ask("GET", f"{kind}/mine", api=api)["properties"]
    listed = azure.ask("GET", f"{kind}/mine/versions?$orderBy=createdtime desc&$top=1", api=api)

    assert (container["latestVersion"], container["nextVersion"]) == ("10", "11")
    assert [version["name"] for version in listed["value"]] == ["10"]
    names = [each["name"] for each in azure.ask("GET", kind, api=api)["value"]]
    assert "mine" in names


@pytest.mark.parametrize("kind", ["data", "environments", "models"])
def test_versions_of_an_unknown_name_are_not_found(azure: Client, kind: str) -> None:
    azure.ask("GET", f"{kind}/none/versions", api=BODIES[kind][0], expect=404)
    azure.ask("GET", f"{kind}/none", api=BODIES[kind][0], expect=404)


def test_an_archived_version_is_listed_only_when_asked_for(azure: Client) -> None:
    api, properties = BODIES["models"]
    azure.ask("PUT", "models/m/versions/1", {"properties": properties}, api=api, expect=201)
    archived = {"properties": {**properties, "isArchived": True}}
    azure.ask("PUT", "models/m/versions/1", archived, api=api)

    assert azure.ask("GET", "models/m/versions", api=api)["value"] == []
    found = azure.ask("GET", "models/m/versions?listViewType=All", api=api)["value"]
    assert len(found) == 1


def test_code_is_found_by_the_hash_of_its_content_under_any_name(azure: Client) -> None:
    query = "versions?hash=abc&hashVersion=202208"
    assert azure.ask("GET", f"codes/first/{query}", api=CODES)["value"] == []
    uri = BODIES["codes"][1]["codeUri"]
    properties = {"codeUri": uri, "properties": {"hash_sha256": "abc", "hash_version": "202208"}}
    body = {"properties": properties}
    made = azure.ask("PUT", "codes/first/versions/1", body, api=CODES, expect=201)

    found = azure.ask("GET", f"codes/second/{query}", api=CODES)["value"]

    assert [each["id"] for each in found] == [made["id"]]


@pytest.mark.parametrize("expired", [False, True])
def test_an_upload_gets_a_container_of_its_own_and_a_sas(azure: Client, expired: bool) -> None:
    if expired:
        azure.azure.faults.add(Fault(kind="expired_sas"))
    body = {"pendingUploadType": "TemporaryBlobReference"}

    answer = azure.ask("POST", "codes/c/versions/1/startPendingUpload", body, api=CODES)

    blob = answer["blobReferenceForConsumption"]
    container = blob["blobUri"].rpartition("/")[2]
    assert len(container) <= 63
    assert azure.azure.storage.names(container) == []
    assert blob["credential"]["sasUri"].startswith(f"{blob['blobUri']}?")
    assert ("2000-01-01" in blob["credential"]["sasUri"]) == expired


@pytest.mark.slow
def test_a_model_of_a_jobs_output_is_where_the_output_is(azure: Client) -> None:
    uri = "azureml://datastores/workspaceblobstore/paths/homeport/base/model"
    outputs = {"model": {"jobOutputType": "uri_folder", "mode": "Upload", "uri": uri}}
    azure.job(
        "made",
        "mkdir ${{outputs.model}}/merged; echo 1 >${{outputs.model}}/merged/w",
        outputs=outputs,
    )
    azure.ended("made")
    given = {
        "modelType": "custom_model",
        "modelUri": "azureml://jobs/made/outputs/model/paths/merged",
    }

    model = azure.ask("PUT", "models/m/versions/1", {"properties": given}, api=MODELS, expect=201)[
        "properties"
    ]

    assert model["jobName"] == "made"
    assert model["modelUri"].endswith(
        "/workspaces/homeport/datastores/workspaceblobstore/paths/homeport/base/model/merged"
    )
    azure.ask("PUT", "models/m/versions/1", {"properties": given}, api=MODELS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("azureml://jobs/none/outputs/model", "Job none was not found"),
        ("azureml://jobs/idle/outputs/none", "Job idle has no output none"),
        ("azureml://jobs/idle/outputs/model", "No files were found"),
    ],
)
def test_a_model_of_nothing_is_refused(azure: Client, uri: str, sentence: str) -> None:
    azure.job("idle", "true", outputs={"model": {"jobOutputType": "uri_folder"}})
    azure.ended("idle")
    body = {"properties": {"modelType": "custom_model", "modelUri": uri}}

    answer = azure.ask("PUT", "models/m/versions/1", body, api=MODELS, expect=400)

    assert sentence in answer["error"]["message"]


@pytest.mark.slow
def test_the_data_plane_resolves_outputs_and_assets(azure: Client) -> None:
    azure.job(
        "run",
        "echo 1 >${{outputs.my_out}}/x",
        outputs={
            "my_out": {"jobOutputType": "uri_folder"},
            "model": {"jobOutputType": "custom_model"},
        },
    )
    azure.ended("run")
    azure.data("rows", {"a": b"1"})
    body = {"runId": "run", "selectRunMetadata": True}
    data = azure.ask("POST", f"/history/v1.0{azure.workspace}/rundata", body, api="v1.0")
    outputs = data["runMetadata"]["outputs"]
    rows = outputs["my_out"]["assetId"].replace("azureml_run_output_my_out", "rows")

    found = azure.ask(
        "POST",
        f"/data/v1.0{azure.workspace}/dataversion/batchGetResolvedUris",
        {"values": [outputs["my_out"]["assetId"], rows]},
        api="v1.0",
    )["values"]
    models = azure.ask(
        "POST",
        f"/modelregistry/v1.0{azure.workspace}/models/batchGetResolvedUris",
        {"values": [outputs["model"]["assetId"]]},
        api="v1.0",
    )["values"]

    assert [each["uri"].rpartition("/paths/")[2] for each in found.values()] == [
        "azureml/run/my_out/",
        "LocalUpload/rows/",
    ]
    path = models[outputs["model"]["assetId"]]["path"]
    assert path.endswith("/paths/azureml/run/model/")


def test_an_id_that_is_none_is_refused(azure: Client) -> None:
    path = f"/data/v1.0{azure.workspace}/dataversion/batchGetResolvedUris"

    answer = azure.ask("POST", path, {"values": ["rows:1"]}, api="v1.0", expect=400)

    assert "rows:1 is no id of an asset" in json.dumps(answer)


def test_a_deleted_name_takes_its_versions_with_it(azure: Client) -> None:
    azure.data("rows", {"a": b"1"})

    azure.ask("DELETE", "data/rows", api=DATA)

    azure.ask("GET", "data/rows/versions/1", api=DATA, expect=404)
    azure.ask("DELETE", "data/rows", api=DATA, expect=204)
    assert azure.blobs("LocalUpload/rows/") == ["LocalUpload/rows/a"]

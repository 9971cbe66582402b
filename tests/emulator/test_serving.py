"""What runs behind a deployment: model and code in place, probes as declared, updates, ends."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import serving
from emulator.http import Reply
from tests.emulator.small_azure import IMAGE, SmallAzure
from tests.waiting import until

pytestmark = pytest.mark.slow  # each starts servers; test_deployments.py has the quick ones

BLUE = "onlineEndpoints/geo/deployments/blue"
CRASHED = "User container has crashed or terminated"
AFTER_START = {"initialDelay": "PT0.5S", "period": "PT0.2S", "failureThreshold": 5}
"""The last of the failures comes when the server surely listens."""


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[SmallAzure]:
    small = SmallAzure(tmp_path)
    small.endpoint()
    yield small
    small.close()
    assert small.nodes.alive == []
    assert small.journal.report()["problems"] == []


def answer(reply: Reply) -> dict[str, Any]:
    """What the small server says that it saw."""
    assert reply.status == 200, reply
    assert isinstance(reply.body, bytes)
    seen: dict[str, Any] = json.loads(reply.body)
    return seen


def environment(azure: SmallAzure) -> dict[str, str]:
    """Of the container of `blue`, which gets all traffic."""
    azure.route_to(blue=100)
    variables: dict[str, str] = answer(azure.score())["environment"]
    return variables


def files(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_the_models_folder_lies_below_name_and_version(azure: SmallAzure) -> None:
    azure.deploy(model=azure.model("outputs/merged"), variables={"MINE": "1"})
    seen = environment(azure)
    assert seen["MINE"] == "1"
    assert seen["AZUREML_MODEL_DIR"].endswith("/geo/3")
    assert files(seen["AZUREML_MODEL_DIR"]) == {
        "merged/config.json",
        "merged/weights/1.safetensors",
    }
    (mount,) = azure.nodes.started[0].program.mounts
    assert (mount.path, mount.read_only) == ("/var/azureml-app/azureml-models/geo/3", True)


def test_a_model_of_one_file_lies_directly_there(azure: SmallAzure) -> None:
    azure.storage.write("blobs", "models/one.bin", b"1")
    azure.storage.write("blobs", "models/one.bin.json", b"not of it")
    model = azure.asset(
        "models/one/versions/1",
        modelUri="azureml://datastores/workspaceblobstore/paths/models/one.bin",
    )
    azure.deploy(model=model)
    assert files(environment(azure)["AZUREML_MODEL_DIR"]) == {"one.bin"}


def test_a_mount_path_replaces_the_prefix_only(azure: SmallAzure) -> None:
    azure.deploy(model=azure.model(), modelMountPath="/var/models/")
    (mount,) = azure.nodes.started[0].program.mounts
    assert mount.path == "/var/models/geo/3"


def test_the_scoring_script_is_where_the_server_looks(azure: SmallAzure) -> None:
    azure.storage.create_container("code")
    azure.storage.write("code", "onlinescoring/score.py", b"def init(): ...")
    code = azure.asset("codes/x/versions/1", codeUri=azure.storage.url("code", "onlinescoring"))
    azure.deploy(codeConfiguration={"codeId": code, "scoringScript": "score.py"})
    seen = environment(azure)
    assert Path(seen["AML_APP_ROOT"], seen["AZUREML_ENTRY_SCRIPT"]).is_file()
    (mount,) = azure.nodes.started[0].program.mounts
    assert mount.path == "/var/azureml-app"


def test_the_container_gets_what_it_needs_to_reach_this_azure(azure: SmallAzure) -> None:
    azure.azure.node_environment = {"HTTPS_PROXY": "http://127.0.0.1:9", "MINE": "theirs"}
    azure.deploy(variables={"MINE": "mine"})
    seen = environment(azure)
    assert (seen["HTTPS_PROXY"], seen["MINE"]) == ("http://127.0.0.1:9", "mine")


def test_routes_and_port_are_the_environments(azure: SmallAzure) -> None:
    route = {"port": 8080}
    azure.environment = azure.asset(
        "environments/x/versions/1",
        image=IMAGE,
        inferenceConfig={
            "livenessRoute": {**route, "path": "/status/204"},
            "readinessRoute": {**route, "path": "/status/200"},
            "scoringRoute": {**route, "path": "/v1/predict"},
        },
    )
    assert azure.deploy()["status"] == "Succeeded"
    azure.route_to(blue=100)
    assert answer(azure.score())["path"] == "/v1/predict"
    assert azure.nodes.started[0].program.port == 8080


@pytest.mark.parametrize(
    ("variables", "probe", "message"),
    [
        ({"EXIT": "3"}, {}, f"{CRASHED}. Please"),
        (
            {"START_SECONDS": "60"},
            AFTER_START,
            f"{CRASHED}: Liveness probe failed: HTTP probe failed with statuscode: 502. Please",
        ),
        (
            {"HEALTH": "500"},
            AFTER_START,
            f"{CRASHED}: Liveness probe failed: HTTP probe failed with statuscode: 500. Please",
        ),
        (
            {"HEALTH_SECONDS": "5"},
            AFTER_START | {"timeout": "PT0.1S"},
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers). Please",
        ),
    ],
)
def test_a_container_that_does_not_come_up_fails_the_deployment(
    azure: SmallAzure, variables: dict[str, str], probe: dict[str, Any], message: str
) -> None:
    status = azure.deploy(variables=variables, liveness=probe, readiness={"period": "PT30S"})
    assert status["status"] == "Failed"
    assert status["error"]["code"] == "ResourceNotReady"
    assert message in status["error"]["message"]
    assert status["error"]["message"].endswith("https://aka.ms/oe-tsg#error-resourcenotready")
    assert azure.nodes.alive == []
    assert "starting" in azure.logs()
    assert "UserContainerStart: Failed" in azure.logs()


def test_a_container_that_is_never_ready_fails_the_deployment(azure: SmallAzure) -> None:
    azure.environment = azure.asset(
        "environments/x/versions/1",
        image=IMAGE,
        inferenceConfig={"readinessRoute": {"path": "/status/503", "port": 5001}},
    )
    after_its_start = {"initialDelay": "PT1S", "failureThreshold": 3}
    status = azure.deploy(readiness=after_its_start)
    assert "Readiness probe failed: HTTP probe failed with statuscode: 503" in str(status)
    assert azure.logs().count("Name: ReadinessProbeFailed, Type: Warning") == 3


def test_as_many_failures_as_the_threshold_allows_are_forgiven(azure: SmallAzure) -> None:
    slow = {"START_SECONDS": "0.4"}
    probe = {"period": "PT0.1S", "failureThreshold": 40}
    assert azure.deploy(variables=slow, liveness=probe)["status"] == "Succeeded"
    assert "Name: LivenessProbeFailed" in azure.logs()


def test_the_first_probe_waits_for_the_initial_delay(azure: SmallAzure) -> None:
    began = time.monotonic()
    azure.deploy(liveness={"initialDelay": "PT0.4S"}, readiness={"initialDelay": "PT0.4S"})
    assert time.monotonic() - began > 0.4


def test_as_many_successes_as_the_threshold_says_are_needed(azure: SmallAzure) -> None:
    began = time.monotonic()
    azure.deploy(readiness={"successThreshold": 4, "period": "PT0.1S"})
    assert time.monotonic() - began > 0.3


def test_a_container_whose_liveness_fails_later_is_ended(azure: SmallAzure) -> None:
    azure.deploy(liveness={"failureThreshold": 2})
    azure.route_to(blue=100)
    azure.score("/health/500")
    until(lambda: not azure.nodes.alive)
    reply = azure.score()
    assert (reply.status, reply.headers["ms-azureml-model-error-reason"]) == (
        424,
        "model_not_ready",
    )


def test_an_update_serves_anew_and_ends_what_was_before(azure: SmallAzure) -> None:
    azure.deploy(variables={"MINE": "old"}, model=azure.model())
    folder = environment(azure)["AZUREML_MODEL_DIR"]
    assert azure.deploy(variables={"MINE": "new"}, model=azure.model())["status"] == "Succeeded"
    assert environment(azure)["MINE"] == "new"
    assert len(azure.nodes.alive) == 1
    assert azure.nodes.started[0].removed
    assert not os.path.exists(folder)


def test_an_update_that_fails_leaves_what_was_before(azure: SmallAzure) -> None:
    azure.deploy(variables={"MINE": "old"})
    assert azure.deploy(variables={"EXIT": "1"})["status"] == "Failed"
    assert azure.properties(BLUE)["provisioningState"] == "Failed"
    assert environment(azure)["MINE"] == "old"
    assert "no such module" in azure.logs()
    assert azure.deploy(variables={"MINE": "new"})["status"] == "Succeeded"
    assert environment(azure)["MINE"] == "new"


def test_the_same_update_again_replaces_only_what_has_died(azure: SmallAzure) -> None:
    for _ in range(2):
        assert azure.deploy(liveness=AFTER_START)["status"] == "Succeeded"
    assert len(azure.nodes.started) == 1
    azure.route_to(blue=100)
    azure.score("/health/500")
    until(lambda: not azure.nodes.alive)
    assert azure.deploy(liveness=AFTER_START)["status"] == "Succeeded"
    assert azure.score().status == 200


def test_each_instance_is_a_container_and_patch_changes_their_number(azure: SmallAzure) -> None:
    azure.deploy(capacity=2)
    assert len(azure.nodes.alive) == 2
    for count in (3, 1):
        reply = azure.call("PATCH", BLUE, {"sku": {"capacity": count}, "tags": {"a": "b"}})
        assert reply.status == 202
        assert azure.finish(reply)["status"] == "Succeeded"
        assert len(azure.nodes.alive) == count
    assert azure.nodes.started[0] in azure.nodes.alive
    resource = azure.call("GET", BLUE).body
    assert isinstance(resource, dict)
    assert (resource["sku"]["capacity"], resource["tags"]) == (1, {"a": "b"})


def test_deleting_an_endpoint_ends_its_containers(azure: SmallAzure) -> None:
    azure.deploy("blue", model=azure.model())
    azure.deploy("green")
    assert len(azure.nodes.alive) == 2
    azure.finish(azure.call("DELETE", "onlineEndpoints/geo"))
    assert azure.nodes.alive == []
    assert all(process.removed for process in azure.nodes.started)
    assert list((azure.azure.settings.folder / "deployments").iterdir()) == []


def test_closing_ends_all_also_what_is_coming_up(azure: SmallAzure) -> None:
    azure.deploy("blue")
    coming = azure.deployment_body(variables={"START_SECONDS": "60"})
    reply = azure.call("PUT", "onlineEndpoints/geo/deployments/green", coming)
    until(lambda: len(azure.nodes.started) == 2)
    serving.close(azure.azure)
    assert azure.nodes.alive == []
    assert azure.finish(reply)["error"]["code"] == "OperationCanceled"


def test_hurry_shortens_initial_delays(azure: SmallAzure, tmp_path: Path) -> None:
    quick = SmallAzure(tmp_path / "quick", hurry=0.01)
    quick.endpoint()
    delay = {"initialDelay": "PT20S"}
    try:
        assert quick.deploy(liveness=delay, readiness=delay)["status"] == "Succeeded"
    finally:
        quick.close()

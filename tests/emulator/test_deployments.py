"""Online deployments: what is refused, how operations end, and what stays."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.http import Refusal
from tests.emulator.small_azure import IMAGE, SmallAzure, refused

BLUE = "onlineEndpoints/geo/deployments/blue"


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[SmallAzure]:
    small = SmallAzure(tmp_path)
    small.endpoint()
    yield small
    small.close()
    assert small.journal.report()["problems"] == []


def test_a_new_deployment_is_answered_with_all_that_clients_need(azure: SmallAzure) -> None:
    reply = azure.call("PUT", BLUE, azure.deployment_body(model=azure.model()))
    assert reply.status == 201
    assert isinstance(reply.body, dict)
    properties = reply.body["properties"]
    assert properties["provisioningState"] == "Creating"
    assert properties["scaleSettings"] == {"scaleType": "Default"}
    assert properties["model"].endswith("/models/geo/versions/3")
    assert properties["requestSettings"] == {
        "maxConcurrentRequestsPerInstance": 1,
        "maxQueueWait": "PT0.5S",
        "requestTimeout": "PT5S",
    }
    assert properties["livenessProbe"]["successThreshold"] == 1
    assert reply.body["systemData"]["lastModifiedAt"]
    azure.finish(reply)
    assert azure.properties(BLUE)["provisioningState"] == "Succeeded"


def test_a_deployment_without_an_endpoint_is_refused(azure: SmallAzure) -> None:
    with pytest.raises(Refusal) as refusal:
        azure.deploy(endpoint="none")
    assert refusal.value.status == 400
    assert "This endpoint has not been created successfully" in refused(refusal.value)


def test_a_deployment_of_a_failed_endpoint_is_refused(azure: SmallAzure) -> None:
    azure.faults.add(Fault(kind="failed_provisioning", path="/bad$"))
    azure.endpoint("bad")
    with pytest.raises(Refusal) as refusal:
        azure.deploy(endpoint="bad")
    assert "Please recreate endpoint" in refused(refusal.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"capacity": 0}, "The instance count must be between 1 and 50; it is 0."),
        ({"capacity": 51}, "it is 51."),
        ({"requestSettings": {"requestTimeout": "PT3M1S"}}, "at most 180000 milliseconds"),
        ({"requestSettings": {"requestTimeout": "PT0S"}}, "must be greater than 0"),
        (
            {"requestSettings": {"maxConcurrentRequestsPerInstance": 0}},
            "concurrent requests per instance must be greater than 0",
        ),
        ({"liveness": {"period": "PT0S"}}, "must be greater than 0"),
        ({"readiness": {"failureThreshold": 0}}, "must be greater than 0"),
        ({"environmentId": "/subscriptions/x/environments/y"}, "was not found in the workspace"),
        ({"model": "/subscriptions/x/models/y"}, "The model '/subscriptions/x/models/y' was not"),
        ({"instanceType": ""}, "The instance type is required."),
    ],
)
def test_a_deployment_that_cannot_be_is_refused(
    azure: SmallAzure, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        azure.deploy(**change)
    assert refusal.value.status == 400
    assert "The request is invalid." in refused(refusal.value)
    assert why in refused(refusal.value)
    assert azure.call("GET", "onlineEndpoints/geo/deployments").body == {"value": []}


def test_an_mlflow_model_brings_its_own_environment(azure: SmallAzure) -> None:
    azure.azure.settings = replace(azure.azure.settings, serve_image=IMAGE)
    azure.model("models/phi", "MLmodel", "model/config.json")
    uri = "azureml://datastores/workspaceblobstore/paths/models/phi"
    model = azure.asset("models/phi/versions/1", modelUri=uri, modelType="mlflow_model")

    assert azure.deploy(model=model, environmentId=None)["status"] == "Succeeded"

    program = azure.nodes.started[-1].program
    assert program.image == IMAGE
    assert program.environment["AZUREML_MODEL_DIR"].endswith("/models/phi/1")


def test_any_other_model_needs_an_environment(azure: SmallAzure) -> None:
    with pytest.raises(Refusal) as refusal:
        azure.deploy(model=azure.model(), environmentId=None)
    assert "The environment 'None' was not found" in refused(refusal.value)


@pytest.mark.parametrize("name", ["ab", "a" * 33, "0abc", "a_bc"])
def test_a_name_against_azures_rules_is_refused(azure: SmallAzure, name: str) -> None:
    with pytest.raises(Refusal) as refusal:
        azure.ask_raw("PUT", f"onlineEndpoints/geo/deployments/{name}", azure.deployment_body())
    assert refusal.value.status == 400


def test_the_longest_request_timeout_is_allowed(azure: SmallAzure) -> None:
    assert azure.deploy(requestSettings={"requestTimeout": "PT3M"})["status"] == "Succeeded"


def test_quota_is_refused_in_the_services_words(azure: SmallAzure) -> None:
    azure.faults.add(Fault(kind="quota", path="/deployments/"))
    with pytest.raises(Refusal) as refusal:
        azure.deploy()
    assert "Not enough quota available for Standard_DS3_v2" in refused(refusal.value)
    assert "https://aka.ms/oe-tsg#error-outofquota" in refused(refusal.value)
    assert azure.deploy()["status"] == "Succeeded"


def test_a_failed_deployment_stays_and_can_only_be_deleted(azure: SmallAzure) -> None:
    azure.faults.add(
        Fault(kind="failed_provisioning", path="/blue", cause="OutOfQuota: Insufficient memory.")
    )
    status = azure.deploy()
    assert status["error"]["code"] == "OutOfQuota"
    assert status["error"]["message"].startswith("Insufficient memory. Please see")
    assert azure.properties(BLUE)["provisioningState"] == "Failed"
    with pytest.raises(Refusal) as refusal:
        azure.deploy()
    assert (
        "Specified deployment [blue] failed during initial provisioning and is in an unrecoverable "
        "state. Delete and re-create." in refused(refusal.value)
    )
    azure.finish(azure.call("DELETE", BLUE))
    assert azure.deploy()["status"] == "Succeeded"


def test_an_image_that_is_not_there_fails_with_the_reason(azure: SmallAzure) -> None:
    azure.environment = azure.asset("environments/x/versions/1", image="elsewhere.azurecr.io/x")
    status = azure.deploy()
    assert status["error"]["code"] == "BadArgument"
    assert "Unable to download user container image" in status["error"]["message"]
    assert "UserContainerImagePull: Failed" in azure.logs()


def test_the_fault_image_pull_fails_once(azure: SmallAzure) -> None:
    azure.faults.add(Fault(kind="image_pull"))
    assert azure.deploy()["status"] == "Failed"
    azure.finish(azure.call("DELETE", BLUE))
    assert azure.deploy()["status"] == "Succeeded"


@pytest.mark.parametrize(
    "properties", [{"build": {"contextUri": "x"}}, {"image": "x", "condaFile": "name: x"}, {}]
)
def test_an_environment_that_has_to_be_built_fails(
    azure: SmallAzure, properties: dict[str, Any]
) -> None:
    azure.environment = azure.asset("environments/x/versions/1", **properties)
    assert azure.deploy()["error"]["code"] == "ImageBuildFailure"


def test_a_model_whose_files_are_gone_fails_with_a_log_of_the_initializer(
    azure: SmallAzure,
) -> None:
    model = azure.asset(
        "models/geo/versions/1", modelUri="azureml://datastores/workspaceblobstore/paths/none"
    )
    status = azure.deploy(model=model)
    assert "Unable to download user model" in status["error"]["message"]
    assert "No file lies at none" in azure.logs("StorageInitializer")
    assert "Please check storage-initializer log" in azure.logs()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"scaleSettings": {"scaleType": "TargetUtilization"}}, "scaling by load"),
        ({"egressPublicNetworkAccess": "Disabled"}, "without egress"),
        ({"dataCollector": {"collections": {}}}, "collection of payloads"),
        ({"variables": {"A": "${{keyvault:https://x}}"}}, "secret in an environment variable"),
        ({"endpointComputeType": "Kubernetes"}, "other than managed"),
        ({"model": "azureml://registries/azureml/models/x/versions/1"}, "model of a registry"),
    ],
)
def test_what_this_azure_does_not_know_turns_the_session_red(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    azure = SmallAzure(tmp_path)
    azure.endpoint()
    with pytest.raises(Refusal) as refusal:
        azure.ask_raw("PUT", BLUE, azure.deployment_body(**change))
    assert refusal.value.status == 501
    (problem,) = azure.journal.report()["problems"]
    assert what in problem


def test_routes_on_two_ports_are_not_known(tmp_path: Path) -> None:
    azure = SmallAzure(tmp_path)
    azure.endpoint()
    azure.environment = azure.asset(
        "environments/x/versions/1",
        image="homeportrehearsal.azurecr.io/x",
        inferenceConfig={"livenessRoute": {"path": "/", "port": 8080}},
    )
    with pytest.raises(Refusal) as refusal:
        azure.deploy()
    assert refusal.value.status == 501


def test_a_change_during_a_change_is_a_conflict(azure: SmallAzure) -> None:
    first = azure.call("PUT", BLUE, azure.deployment_body(variables={"START_SECONDS": "0.3"}))
    for method in ("PUT", "PATCH"):
        body = azure.deployment_body() if method == "PUT" else {"sku": {"capacity": 2}}
        with pytest.raises(Refusal) as refusal:
            azure.call(method, BLUE, body)
        assert refusal.value.status == 409
    assert azure.finish(first)["status"] == "Succeeded"


def test_deleting_a_deployment_that_comes_up_cancels_it(azure: SmallAzure) -> None:
    body = azure.deployment_body(variables={"START_SECONDS": "60"}, liveness={"period": "PT60S"})
    first = azure.call("PUT", BLUE, body)
    assert azure.finish(azure.call("DELETE", BLUE))["status"] == "Succeeded"
    assert azure.finish(first)["error"]["code"] == "OperationCanceled"
    assert azure.nodes.alive == []
    assert azure.call("DELETE", BLUE).status == 204


def test_a_deployment_with_live_traffic_cannot_be_deleted(azure: SmallAzure) -> None:
    azure.deploy()
    azure.route_to(blue=100)
    with pytest.raises(Refusal) as refusal:
        azure.call("DELETE", BLUE)
    assert refusal.value.status == 400
    assert "has live traffic allocated to it" in refused(refusal.value)
    azure.route_to(blue=0)
    azure.finish(azure.call("DELETE", BLUE))
    assert azure.nodes.alive == []


def test_logs_are_cut_to_the_last_lines(azure: SmallAzure) -> None:
    azure.deploy(model=azure.model())
    log = azure.logs(tail=1).partition("Container logs:\n")[2]
    assert len(log.splitlines()) == 1
    assert "Kind: Pod, Name: ContainerReady, Type: Normal" in azure.logs()
    assert len(azure.logs("StorageInitializer", tail=1).splitlines()) == 1
    assert "Downloaded 2 files" in azure.logs("StorageInitializer")


def test_a_deployment_that_is_not_there_is_404(azure: SmallAzure) -> None:
    with pytest.raises(Refusal) as refusal:
        azure.call("GET", BLUE)
    assert refusal.value.status == 404

"""Online endpoints by the unpatched azure-ai-ml, over TLS and through the proxy.

The server of the deployments is the inference server of this checkout with a scoring script of the
test; the model's files lie in Azurite.
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.server import Server
from tests import local_azure as local

pytestmark = pytest.mark.slow


IMAGE = "homeportrehearsal.azurecr.io/homeport/serve@sha256:" + "0" * 64
SCORE = """\
import json, os
from pathlib import Path

def init():
    if os.environ["COLOUR"] == "red":
        raise RuntimeError("no such model")

def run(text):
    (file,) = Path(os.environ["AZUREML_MODEL_DIR"]).rglob("*.json")
    asked = json.loads(text)
    if "fail" in asked:
        raise ValueError("as asked")
    return {"asked": asked, "colour": os.environ["COLOUR"], "model": file.read_text(),
            "below": str(file.relative_to(os.environ["AZUREML_MODEL_DIR"]))}
"""


class Sdk:
    """The client, and an endpoint of a name of its own."""

    def __init__(self, server: Server, folder: Path) -> None:
        from azure.ai.ml import MLClient
        from azure.ai.ml.entities import Environment, ManagedOnlineEndpoint, Model
        from azure.identity import EnvironmentCredential

        settings = server.azure.settings
        self.azure = server.azure
        self.folder = folder
        self.name = f"e4-{uuid.uuid4().hex[:8]}"
        self.ml: Any = MLClient(
            EnvironmentCredential(),
            settings.subscription,
            settings.resource_group,
            settings.workspace,
            enable_telemetry=False,
            show_progress=False,
        )
        (folder / "merged").mkdir()
        (folder / "merged" / "config.json").write_text("the model")
        (folder / "score").mkdir()
        (folder / "score" / "score.py").write_text(SCORE)
        self.model = self.ml.models.create_or_update(
            Model(name=self.name, version="1", path=str(folder / "merged"), type="custom_model")
        )
        self.environment = self.ml.environments.create_or_update(
            Environment(name=self.name, version="1", image=IMAGE)
        )
        self.endpoint = self.ml.online_endpoints.begin_create_or_update(
            ManagedOnlineEndpoint(name=self.name, auth_mode="key")
        ).result()

    def deployment(self, name: str, **more: Any) -> Any:
        from azure.ai.ml.entities import (
            CodeConfiguration,
            ManagedOnlineDeployment,
            OnlineRequestSettings,
            ProbeSettings,
        )

        probe = ProbeSettings(initial_delay=1, period=1, timeout=2, failure_threshold=60)
        return ManagedOnlineDeployment(
            **{
                "name": name,
                "endpoint_name": self.name,
                "model": self.model.id,
                "environment": self.environment.id,
                "code_configuration": CodeConfiguration(
                    code=str(self.folder / "score"), scoring_script="score.py"
                ),
                "environment_variables": {"COLOUR": name},
                "instance_type": "Standard_DS3_v2",
                "instance_count": 1,
                "request_settings": OnlineRequestSettings(request_timeout_ms=90000),
                "liveness_probe": probe,
                "readiness_probe": probe,
                **more,
            }
        )

    def deploy(self, name: str, **more: Any) -> Any:
        deployment = self.deployment(name, **more)
        return self.ml.online_deployments.begin_create_or_update(deployment).result()

    def invoke(self, body: Any, **more: Any) -> Any:
        from azure.ai.ml.constants._endpoint import EndpointInvokeFields

        # azure-ai-ml pins all later calls of the process to the deployment of an earlier one
        EndpointInvokeFields.DEFAULT_HEADER.pop("azureml-model-deployment", None)
        file = self.folder / "request.json"
        file.write_text(json.dumps(body))
        return json.loads(self.ml.online_endpoints.invoke(self.name, request_file=file, **more))

    def route_to(self, **traffic: int) -> Any:
        self.endpoint.traffic = traffic
        return self.ml.online_endpoints.begin_create_or_update(self.endpoint).result()


@pytest.fixture
def sdk(local_azure: Server, tmp_path: Path) -> Iterator[Sdk]:
    with local.environment(local_azure):
        client = Sdk(local_azure, tmp_path)
        yield client
        client.ml.online_endpoints.begin_delete(client.name).result()
        problems = local_azure.azure.journal.report()["problems"]
        assert [problem for problem in problems if client.name in problem] == []
        assert client.name not in [found.name for found in client.ml.online_endpoints.list()]


def test_two_deployments_are_rolled_out_asked_and_deleted(sdk: Sdk) -> None:
    assert sdk.endpoint.provisioning_state == "Succeeded"
    assert sdk.endpoint.scoring_uri == f"https://{sdk.name}.eastus.inference.ml.azure.com/score"
    assert sdk.deploy("blue").provisioning_state == "Succeeded"
    assert sdk.route_to(blue=100).traffic == {"blue": 100}
    answer = {"asked": {"a": 1}, "colour": "blue", "model": "the model"}
    assert sdk.invoke({"a": 1}) == {**answer, "below": "merged/config.json"}
    sdk.deploy("green")
    assert sdk.invoke({"a": 1}, deployment_name="green")["colour"] == "green"
    assert sdk.route_to(blue=0, green=100).traffic == {"green": 100}
    assert {found.name for found in sdk.ml.online_deployments.list(sdk.name)} == {"blue", "green"}
    keys = sdk.ml.online_endpoints.get_keys(sdk.name)
    assert keys.primary_key != keys.secondary_key
    logs = sdk.ml.online_deployments.get_logs("green", sdk.name, lines=100)
    assert "UserContainerStart: Succeeded" in logs
    assert "Kind: Pod, Name: ContainerReady" in logs
    logs = sdk.ml.online_deployments.get_logs(
        "green", sdk.name, lines=100, container_type="storage-initializer"
    )
    assert "Downloaded 1 files, 9 bytes" in logs
    sdk.ml.online_deployments.begin_delete("blue", sdk.name).result()
    assert [found.name for found in sdk.ml.online_deployments.list(sdk.name)] == ["green"]


def test_failures_are_raised_with_the_services_words(sdk: Sdk) -> None:
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as error:
        sdk.deploy("red")
    assert str(error.value).startswith(
        "(ResourceNotReady) User container has crashed or terminated. Please see troubleshooting "
        "guide, available here: https://aka.ms/oe-tsg#error-resourcenotready"
    )
    assert sdk.ml.online_deployments.get("red", sdk.name).provisioning_state == "Failed"
    logs = sdk.ml.online_deployments.get_logs("red", sdk.name, lines=100)
    assert "RuntimeError: no such model" in logs

    with pytest.raises(HttpResponseError, match="in an unrecoverable state"):
        sdk.deploy("red")
    with pytest.raises(HttpResponseError, match=r"InferencingClientCallFailed.*between 1 and 50"):
        sdk.deploy("blue", instance_count=0)
    sdk.azure.faults.add(Fault(kind="quota", path=f"{sdk.name}/deployments/"))
    with pytest.raises(HttpResponseError, match="Not enough quota available for Standard_DS3_v2"):
        sdk.deploy("blue")
    sdk.azure.faults.add(Fault(kind="image_pull", path=f"{sdk.name}/deployments/"))
    with pytest.raises(HttpResponseError, match="Unable to download user container image"):
        sdk.deploy("blue")


def test_an_answer_that_is_not_200_is_raised_as_424(sdk: Sdk) -> None:
    from azure.core.exceptions import HttpResponseError

    sdk.deploy("blue")
    with pytest.raises(Exception, match="No valid deployments to route to"):
        sdk.invoke({})
    sdk.route_to(blue=100)
    with pytest.raises(HttpResponseError) as error:
        sdk.invoke({"fail": True})
    assert error.value.status_code == 424
    response: Any = error.value.response
    assert response.headers["ms-azureml-model-error-statuscode"] == "500"

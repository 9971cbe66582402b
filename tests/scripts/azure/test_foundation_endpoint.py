from pathlib import Path
from typing import Any

import pytest

from scripts.azure import foundation, foundation_endpoint, specs
from scripts.errors import UsageError
from tests.scripts.azure.stage import Stage, stage
from tests.scripts.azure.stand_ins import requests_of
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

PHI = ROOT / "recipes/phi-3-mini-ultrachat.yaml"


def recipe(*overrides: str) -> Recipe:
    return recipes.load(PHI, overrides, {})


def filled(*overrides: str, endpoint: str = "phi-3-mini") -> dict[str, Any]:
    return foundation_endpoint.fill(
        name="blue-1a2b3c4d", endpoint=endpoint, model="phi-3:7", recipe=recipe(*overrides)
    )


def test_the_deployment_names_the_model_and_no_environment() -> None:
    found = filled("cloud.serve_instances=2")
    assert found["model"] == "azureml:phi-3:7"
    assert found["instance_type"] == "Standard_NC24ads_A100_v4"
    assert found["instance_count"] == 2
    assert "environment" not in found


def test_a_model_has_ten_minutes_to_load_and_a_request_ninety_seconds() -> None:
    found = filled()
    assert found["liveness_probe"]["initial_delay"] == 600
    assert found["request_settings"]["request_timeout_ms"] == 90_000
    assert foundation_endpoint.TIMEOUTS.request_timeout_ms == 90_000
    foundation_endpoint.TIMEOUTS.check()


@pytest.mark.slow
def test_the_sdk_takes_it() -> None:
    entity = specs.entity(foundation_endpoint.KIND, filled())
    assert entity.liveness_probe.initial_delay == 600
    assert entity.environment is None


def test_an_endpoints_name_of_fifty_characters_is_refused() -> None:
    with pytest.raises(UsageError, match=r"3 to 32 .*set cloud\.endpoint"):
        filled(endpoint="gpt-oss-20b-multilingual-thinking-chat-1785000000")


def test_the_cost_is_told_by_the_hour_and_to_its_expiry() -> None:
    cost = foundation_endpoint.serving_cost(recipe("cloud.serve_instances=2"))
    assert "costs $7.35 per hour until `make cloud-down`; $176.30 in the 24 h" in cost.line
    assert "on 2 x Standard_NC24ads_A100_v4" in cost.line
    assert not cost.unknown


def test_a_chat_and_a_text_have_the_catalogs_forms() -> None:
    assert foundation_endpoint.input_data("Hello", "chat", max_new_tokens=9) == {
        "input_data": {
            "input_string": [{"role": "user", "content": "Hello"}],
            "parameters": {"max_new_tokens": 9, "do_sample": False},
        }
    }
    text = foundation_endpoint.input_data("Once", "text")["input_data"]
    assert text["input_string"] == ["Once"]
    assert text["parameters"]["return_full_text"] is False


def test_our_own_server_takes_the_same_requests() -> None:
    from serve.dialects import mlflow

    chat = mlflow.read(foundation_endpoint.input_data("Hello", "chat"), context=2048)
    assert chat.form == "chat"
    text = mlflow.read(foundation_endpoint.input_data("Once", "text"), context=2048)
    assert text.requests[0].text == "Once"


@pytest.mark.parametrize(
    ("body", "text"), [({"output": "a"}, "a"), ({"output": ["b", "c"]}, "b"), ({"output": []}, "")]
)
def test_the_answer_is_read_in_either_form(body: dict[str, Any], text: str) -> None:
    assert foundation_endpoint.output(body) == text


def test_the_plan_says_where_the_registry_serves_it() -> None:
    model = foundation.known(recipe())
    assert model
    told = [value for _, value in foundation_endpoint.rows(model, recipe())]
    assert any("Standard_NC6s_v3" in value for value in told)
    assert len(foundation_endpoint.rows(None, recipe())) == len(told) - 1


@pytest.mark.slow
def test_a_rollout_serves_the_newest_mlflow_model_and_asks_it_in_its_form(tmp_path: Path) -> None:
    from scripts.azure.routes import Work, registry_pipeline

    found = recipe("cloud.traffic_steps=[100]")
    with stage(tmp_path) as azure:
        register(azure, "20261122")
        work = Work(cloud=azure.cloud, recipe=found, path=PHI, yes=True, again="make cloud-deploy")
        told = registry_pipeline.deploy(work)
        assert told["model"] == "phi-3-mini-ultrachat:20261122"
        assert told["uri"].endswith("/score")
        answer = registry_pipeline.ask(azure.cloud, found, "オーストラリアの首都は？")
        assert answer.output == "キャンベラ"
        assert told["deployment"] in answer.by
        (_, trial), *_, (_, asked) = azure.kitchen.asked
        assert trial["input_data"]["parameters"]["max_new_tokens"] == 16
        assert asked["input_data"]["input_string"] == [
            {"role": "user", "content": "オーストラリアの首都は？"}
        ]
        assert "input_data" in registry_pipeline.curl(azure.cloud, found, "Hello")
        (sent,) = [e["request"] for e in requests_of(azure.server, "PUT", "/deployments/")]
        properties = sent["properties"]
        assert "environmentId" not in properties
        assert properties["requestSettings"]["requestTimeout"] == "PT1M30S"
        assert properties["livenessProbe"]["initialDelay"] == "PT10M"


@pytest.mark.slow
def test_a_machine_that_the_model_is_not_served_on_is_refused(tmp_path: Path) -> None:
    from scripts.azure.routes import Work, registry_pipeline

    found = recipe("cloud.serve_instance_type=Standard_NC4as_T4_v3")
    with stage(tmp_path) as azure:
        register(azure, "1")
        work = Work(cloud=azure.cloud, recipe=found, path=PHI, yes=True)
        with pytest.raises(UsageError, match="Standard_NC4as_T4_v3 cannot serve"):
            registry_pipeline.deploy(work)
        assert requests_of(azure.server, "PUT", "/onlineEndpoints/") == []


def register(azure: Stage, version: str) -> None:
    """An MLflow model of the recipe's name, as a pipeline leaves it."""
    from azure.ai.ml.entities import Model

    storage, container = azure.server.azure.storage, azure.server.azure.settings.blob_container
    storage.create_container(container)
    for name in ("MLmodel", "data/model/config.json"):
        storage.write(container, f"models/{version}/{name}", b"{}")
    azure.cloud.ml.models.create_or_update(
        Model(
            name="phi-3-mini-ultrachat",
            version=version,
            type="mlflow_model",
            path=f"azureml://datastores/workspaceblobstore/paths/models/{version}",
        )
    )

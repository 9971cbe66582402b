"""Registries answer as Azure's own, in the form that the SDK and Azure's samples read."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from emulator import machines, registries
from emulator.server import Server
from tests.local_azure import bare_azure, environment, session

VERSION = "2021-10-01-dataplanepreview"
PHI = "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/15"
CHAT = "azureml://registries/azureml/components/chat_completion_pipeline/versions/0.0.82"
ANY: Mapping[str, str] = {}
NEWEST = {"$top": "1", "$orderBy": "createdtime desc"}
FILE = json.loads(registries.FILE.read_bytes())["registries"]


def get(server: Server, path: str, status: int = 200, query: Mapping[str, str] = ANY) -> Any:
    """The JSON of an answer of registry azureml, which breaks no contract."""
    front = (
        "/mferp/managementfrontend/subscriptions/s/resourceGroups/registries/providers"
        "/Microsoft.MachineLearningServices/registries/"
    )
    whole = path if path.startswith("/") else f"{front}{path}"
    version = "v1.0" if path.startswith("/registrymanagement") else VERSION
    answer = session(server).get(
        f"{server.azure.settings.api}{whole}", params={"api-version": version, **query}
    )
    assert answer.status_code == status, answer.text
    assert server.report()["problems"] == []
    return answer.json()


def names(server: Server, path: str, view: str = "") -> list[str]:
    query = {"listViewType": view} if view else ANY
    return [one["name"] for one in get(server, path, query=query)["value"]]


def test_discovery_names_the_region_and_where_the_registry_answers(bare: Server) -> None:
    found = get(bare, "/registrymanagement/v1.0/registries/azureml/discovery")
    assert found["registryName"] == "azureml"
    assert found["primaryRegionResourceProviderUri"] == f"{bare.azure.settings.api}/"
    assert found["registryFqdns"]["eastus"] == {"resourceProviderUri": bare.azure.settings.api}


def test_an_unknown_registry_is_not_found(bare: Server) -> None:
    answer = get(bare, "/registrymanagement/v1.0/registries/mine/discovery", 404)
    assert answer["error"]["message"] == "Registry mine could not be found."
    get(bare, "mine/models/Phi-4/versions", 404)


@pytest.mark.parametrize(
    "path", ["models/Phi-2", "models/Phi-2/versions", "models/Phi-4/versions/1"]
)
def test_what_a_registry_does_not_have_is_not_found(bare: Server, path: str) -> None:
    assert get(bare, f"azureml/{path}", 404)["error"]["code"] == "UserError"


def test_a_model_has_its_lists_and_defaults_as_the_samples_read_them(bare: Server) -> None:
    found = get(bare, "azureml/models/Phi-3-mini-4k-instruct/versions/15")
    assert found["id"] == PHI
    tags, properties = found["properties"]["tags"], found["properties"]["properties"]
    assert ast.literal_eval(tags["finetune_compute_allow_list"])[0] == "Standard_NC24ads_A100_v4"
    defaults = ast.literal_eval(tags["model_specific_defaults"])
    assert (defaults["deepspeed_stage"], defaults["learning_rate_min"]) == (2, "5e-7")
    assert properties["finetune-min-sku-spec"] == "24|1|220|64"
    assert properties["finetune-recommended-sku"].split(", ")[-1] == "Standard_ND96amsr_A100_v4"


def test_a_retired_model_is_archived_and_still_found_by_its_name(bare: Server) -> None:
    newest = get(bare, "azureml/models/Phi-3-mini-4k-instruct/versions", query=NEWEST)["value"]
    assert [one["id"] for one in newest] == [PHI]
    assert newest[0]["properties"]["isArchived"]
    assert newest[0]["properties"]["tags"]["FinetuneRetirementDate"] == "2025-08-30"
    assert "Phi-3-mini-4k-instruct" not in names(bare, "azureml/models")
    assert names(bare, "azureml/models", "ArchivedOnly") == ["Phi-3-mini-4k-instruct"]
    assert "Phi-3-mini-4k-instruct" in names(bare, "azureml/models", "All")
    assert names(bare, "azureml/models/Phi-3-mini-4k-instruct/versions", "ActiveOnly") == []


@pytest.mark.parametrize(
    ("registry", "name", "kind"),
    [
        ("azureml", "mistralai-Mistral-7B-v01", "mlflow_model"),
        ("azureml-openai-oss", "gpt-oss-20b", "custom_model"),
        ("azureml-meta", "Meta-Llama-3-8B", "mlflow_model"),
    ],
)
def test_models_of_the_other_routes_are_there(
    bare: Server, registry: str, name: str, kind: str
) -> None:
    (found,) = get(bare, f"{registry}/models/{name}/versions")["value"]
    assert found["properties"]["modelType"] == kind
    latest = get(bare, f"{registry}/models/{name}")["properties"]["latestVersion"]
    assert found["name"] == latest


def test_an_instruct_model_that_declares_no_fine_tuning_says_nothing_of_it(bare: Server) -> None:
    (found,) = get(bare, "azureml/models/mistralai-Mistral-7B-Instruct-v0-3/versions")["value"]
    assert not [name for name in found["properties"]["properties"] if "finetun" in name]


@pytest.mark.parametrize(
    ("name", "count", "own"),
    [
        ("chat_completion_pipeline", 69, "finetune_config_path"),
        ("text_generation_pipeline", 70, "text_key"),
    ],
)
def test_a_component_has_all_its_inputs_and_its_steps(
    bare: Server, name: str, count: int, own: str
) -> None:
    (found,) = get(bare, f"azureml/components/{name}/versions", query=NEWEST)["value"]
    spec = found["properties"]["componentSpec"]
    assert (len(spec["inputs"]), own in spec["inputs"]) == (count, True)
    assert spec["inputs"]["apply_lora"]["enum"] == ["true", "false"]
    assert spec["inputs"]["deepspeed_stage"]["default"] == "2"
    assert spec["inputs"]["instance_type_finetune"]["default"] == "Standard_nc24rs_v3"
    assert "learning_rate_min" not in spec["inputs"]
    assert list(spec["outputs"]) == ["pytorch_model_folder", "mlflow_model_folder"]
    assert list(spec["jobs"])[-1] == "ft_nlp_model_converter"


def test_an_asset_is_found_by_its_id(bare: Server) -> None:
    def name(asset: str) -> str | None:
        found = registries.find(bare.azure, asset)
        return str(found["id"]) if found else None

    assert name(PHI) == PHI
    assert name(CHAT) == CHAT
    assert name(PHI.lower()) == PHI
    assert name(CHAT.replace("versions/0.0.82", "labels/latest")) == CHAT
    assert name(PHI.replace("/15", "/16")) is None
    assert name("azureml:mine:1") is None


def test_what_is_answered_can_be_changed_without_harm(bare: Server) -> None:
    found = registries.find(bare.azure, CHAT)
    assert found
    found["properties"]["componentSpec"]["inputs"].clear()
    again = registries.find(bare.azure, CHAT)
    assert again
    assert again["properties"]["componentSpec"]["inputs"]


def listed(model: dict[str, Any]) -> set[str]:
    lists = [value for tag, value in model["tags"].items() if tag.endswith("_compute_allow_list")]
    return {name for each in lists for name in each}


def test_the_region_has_every_machine_that_a_model_asks_for() -> None:
    models = [model for kinds in FILE.values() for model in kinds["models"].values()]
    assert {name for model in models for name in listed(model) if not machines.find(name)} == set()


@pytest.mark.slow
def test_the_sdk_gets_model_and_component_and_refuses_what_the_component_lacks(
    tmp_path: Path,
) -> None:
    with bare_azure(tmp_path) as server, environment(server):
        use_sdk()
        assert server.report()["problems"] == []


def use_sdk() -> None:
    """Models and components by label and version, in a client of its own registry."""
    ml = pytest.importorskip("azure.ai.ml", reason="installed by the first cloud verb")
    from azure.ai.ml.exceptions import UnexpectedKeywordError
    from azure.identity import EnvironmentCredential

    with EnvironmentCredential() as credential:
        client = ml.MLClient(credential, registry_name="azureml", enable_telemetry=False)
        model = client.models.get("Phi-3-mini-4k-instruct", label="latest")
        assert (model.id, model.version, model.type) == (PHI, "15", "mlflow_model")
        assert "Phi-4" in {one.name for one in client.models.list()}
        component = client.components.get("chat_completion_pipeline", label="latest")
        assert component.id == CHAT
        same = client.components.get("chat_completion_pipeline", version="0.0.82")
        assert list(same.inputs) == list(component.inputs)
        assert component.inputs["lora_alpha"].default == 128
        with pytest.raises(UnexpectedKeywordError, match="learning_rate_min"):
            component(learning_rate_min=5e-7)

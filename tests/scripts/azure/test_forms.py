"""The fine-tuning job as a file for `az ml` and as the API's body: all text, never without rows."""

import dataclasses
import io
import json
import logging
from typing import Any

import pytest
import yaml

from emulator.contract.check import check_request
from scripts.azure import finetuning, forms, specs
from scripts.errors import UsageError
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

PATH = ROOT / "recipes/mistral-7b-samsum.yaml"
MODEL = "azureml://registries/azureml/models/mistralai-Mistral-7B-v01/versions/19"
GUID = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
DATA = {"train": "azureml:samsum-train:0123", "validation": "azureml:samsum-validation:4567"}
WORKSPACE = (
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
)


def recipe(overrides: list[str] | None = None) -> Recipe:
    return recipes.load(PATH, overrides or [], environ={})


def filled(made: Recipe | None = None, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": "samsum-1",
        "recipe": made or recipe(),
        "model": MODEL,
        "data": DATA,
        "guid": GUID,
    }
    return forms.fill(**{**given, **changes})


def body(made: Recipe | None = None) -> dict[str, Any]:
    properties: dict[str, Any] = forms.request(filled(made), WORKSPACE)["properties"]
    return properties


def test_hyperparameters_are_text_and_the_numbers_plain() -> None:
    made = recipe(["training.learning_rate=2.0e-5", "cloud.parameters.lora_r=16"])
    assert forms.hyperparameters(made) == {
        "num_train_epochs": "3",
        "per_device_train_batch_size": "4",
        "learning_rate": "0.00002",
        "max_seq_length": "1024",
        "lora_r": "16",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (3.0, "3"), (1e-7, "0.0000001"), (5, "5"), ("cosine", "cosine")],
)
def test_a_value_is_written_as_the_service_reads_it(value: Any, text: str) -> None:
    assert forms.as_text(value) == text


def test_the_recipes_own_parameters_go_over_ours() -> None:
    made = recipe(["cloud.parameters.num_train_epochs=7"])
    assert forms.hyperparameters(made)["num_train_epochs"] == "7"


@pytest.mark.parametrize("data", [{"train": "azureml:a:1"}, {**DATA, "validation": ""}])
def test_a_job_without_rows_for_validation_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"needs rows for validation: set data\.validation"):
        filled(data=data)


def test_the_models_name_has_a_guid_and_is_new_for_every_job() -> None:
    assert forms.output_name(recipe(), GUID) == "mistral-7b-samsum-1b9d6bcd"
    other = forms.output_name(recipe(), "2" * 32)
    assert other != forms.output_name(recipe(), GUID)


def test_a_machine_is_asked_for_by_its_type() -> None:
    properties = body()
    assert properties["resources"] == {"instanceTypes": ["Standard_NC48ads_A100_v4"]}
    assert properties["queueSettings"] == {"jobTier": "Standard"}
    assert "computeId" not in properties
    assert body(recipe(["cloud.spot=true"]))["queueSettings"] == {"jobTier": "Spot"}


def test_a_cluster_goes_in_by_its_id_and_the_job_runs_as_the_cluster() -> None:
    properties = body(recipe(["cloud.compute=gpus"]))
    assert properties["computeId"] == f"{WORKSPACE}/computes/gpus"
    assert properties["identity"] == {"identityType": "Managed"}
    assert "resources" not in properties


def test_with_neither_the_service_takes_its_own_machines() -> None:
    made = recipe(["cloud.instance_type=serverless"])
    assert forms.hosted(made)
    assert not {"resources", "queueSettings", "computeId"} & set(body(made))


@pytest.mark.slow  # for the import of the SDK
def test_the_request_is_what_the_sdk_makes_but_for_the_parts_that_it_cannot_send() -> None:
    from azure.ai.ml.finetuning import create_finetuning_job

    for name in ("azure.ai.ml._utils._experimental", "msrest.serialization"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    job: Any = create_finetuning_job(
        name="samsum-1",
        display_name="samsum-1",
        experiment_name="mistral-7b-samsum",
        task="TextCompletion",
        model=MODEL,
        training_data=f"{WORKSPACE}/data/samsum-train/versions/0123",
        validation_data=f"{WORKSPACE}/data/samsum-validation/versions/4567",
        hyperparameters=forms.hyperparameters(recipe()),
        instance_types=["Standard_NC48ads_A100_v4"],
        job_tier="Standard",
        tags={"homeport": "1"},
        output_model_name_prefix="mistral-7b-samsum-1b9d6bcd",
    )
    rest = job._to_rest_object()
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(rest, default=_plain)
    output = rest.properties.pop("outputs")["registered_model"]
    queue = rest.properties.pop("queueSettings")
    sdk = json.loads(json.dumps(rest, default=_plain))["properties"]
    ours = body()
    assert "Homeport" in ours.pop("description")
    assert ours.pop("outputs") == {
        "registered_model": {
            "jobOutputType": output.job_output_type,
            "assetName": output.asset_name,
        }
    }
    assert ours.pop("queueSettings") == {"jobTier": queue.job_tier}
    # case of enumerations counts for nothing
    assert sdk["fineTuningDetails"].pop("taskType") == "textCompletion"
    assert ours["fineTuningDetails"].pop("taskType") == "TextCompletion"
    assert ours == sdk


def _plain(value: Any) -> Any:
    """The models of the SDK's newer kind are mappings; those of the older kind are not."""
    if hasattr(value, "as_dict") and hasattr(value, "items"):
        return dict(value.items())
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


@pytest.mark.slow
@pytest.mark.parametrize("place", [[], ["cloud.compute=gpus"], ["cloud.instance_type=serverless"]])
def test_az_ml_takes_the_file_as_it_stands(place: list[str]) -> None:
    import azure.ai.ml as sdk

    document = filled(recipe([*place, "cloud.task=chat"]))
    document.pop("identity", None)  # the API takes it, the SDK's schema for the file does not
    text = io.StringIO(yaml.safe_dump(document))
    job: Any = sdk.load_job(text, relative_origin=str(specs.FOLDER / "finetuning-job.yml"))
    assert job.task == "chatCompletion"
    assert job.outputs["registered_model"].name == "mistral-7b-samsum-1b9d6bcd"
    assert sdk.load_job(specs.FOLDER / "finetuning-job.yml").name == "mistral-7b-samsum"


def test_what_the_service_does_otherwise_is_said() -> None:
    made = recipe(["training.epochs=1.5", "cloud.nodes=2", "cloud.parameters.lora_r=16"])
    said = " ".join(forms.notes(made))
    assert "it trains 2" in said
    assert "cloud.nodes is 2" in said
    assert "cloud.parameters.lora_r: no sample of the service has it" in said
    assert forms.hyperparameters(made)["num_train_epochs"] == "2"
    assert forms.notes(recipe()) == []


def test_what_it_cannot_learn_is_refused() -> None:
    with pytest.raises(UsageError, match="learns answers only"):
        forms.check(dataclasses.replace(recipe(), method="dpo"))
    with pytest.raises(UsageError, match="whole passes"):
        forms.check(recipe(["training.epochs=0.5"]))


@pytest.mark.parametrize("place", [[], ["cloud.compute=gpus"], ["cloud.instance_type=serverless"]])
@pytest.mark.parametrize("task", ["chat", "text"])
def test_the_services_contract_takes_the_body(place: list[str], task: str) -> None:
    made = forms.request(filled(recipe([*place, f"cloud.task={task}"])), WORKSPACE)
    path = f"{WORKSPACE}/jobs/samsum-1"
    assert check_request("PUT", path, finetuning.API, made) == []
    made["properties"]["fineTuningDetails"]["hyperParameters"] = ["1"]
    assert check_request("PUT", path, finetuning.API, made)

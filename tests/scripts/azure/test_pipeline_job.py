"""The pipeline job as the real SDK sends it, held against the local Azure's registries."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.azure import client, parameters, pipeline_job, registries
from scripts.azure.client import Cloud
from scripts.azure.pipeline_job import Parts
from scripts.errors import UsageError
from tests import local_azure as local
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

FILES = {"train": "azureml:rows-train:1", "validation": "azureml:rows-validation:1"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("azure")
    with local.bare_azure(folder) as server, local.environment(server):
        yield client.connect()


def recipe(*overrides: str) -> Recipe:
    return recipes.load(ROOT / "recipes/phi-3-mini-ultrachat.yaml", overrides, {})


@pytest.fixture(scope="module")
def parts(cloud: Cloud) -> Parts:
    return pipeline_job.assemble(cloud, recipe(), rows=2000)


def sent(job: Any) -> dict[str, Any]:
    """The job's properties as they go to the service."""
    found: dict[str, Any] = job._to_rest_object().as_dict()["properties"]
    return found


def literals(step: dict[str, Any]) -> dict[str, str]:
    return {name: entry["value"] for name, entry in step["inputs"].items() if "value" in entry}


def test_the_job_is_one_step_with_the_registrys_pipeline(parts: Parts) -> None:
    job = sent(
        pipeline_job.build(parts, FILES, name="phi-0123456789", tags={"homeport-owner": "me"})
    )
    (step,) = job["jobs"].values()
    assert step["componentId"] == (
        "azureml://registries/azureml/components/chat_completion_pipeline/versions/0.0.82"
    )
    assert step["inputs"]["mlflow_model_path"] == {
        "job_input_type": "mlflow_model",
        "uri": "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/15",
    }
    assert step["inputs"]["train_file_path"]["uri"] == "azureml:rows-train:1"
    assert step["inputs"]["validation_file_path"]["job_input_type"] == "uri_file"
    assert "test_file_path" not in step["inputs"]
    assert step["outputs"]["mlflow_model_folder"]["value"] == "${{parent.outputs.trained_model}}"
    assert job["outputs"]["trained_model"]["job_output_type"] == "mlflow_model"
    assert job["settings"]["force_rerun"] is True
    assert job["settings"]["continue_on_step_failure"] is False
    assert job["display_name"] == (
        "Phi-3-mini-4k-instruct-phi-3-mini-ultrachat-bs8-cosine-ds2-lora-save_limit2-seqlen2048"
    )
    assert job["experiment_name"] == "phi-3-mini-ultrachat"
    assert job["tags"] == {
        "homeport": "1",
        "homeport-owner": "me",
        "homeport-machine": "1 x Standard_NC24ads_A100_v4",
    }


def test_nothing_is_sent_that_the_component_does_not_take(parts: Parts) -> None:
    (step,) = sent(pipeline_job.build(parts, FILES, name="phi-1", tags={}))["jobs"].values()
    known = parameters.slots_of(parts.component)
    assert set(step["inputs"]) <= set(known)
    assert "learning_rate_min" not in step["inputs"]
    assert literals(step)["apply_lora"] == "true"
    assert literals(step)["precision"] == "16"
    assert literals(step)["warmup_steps"] == "50"  # a fifth of 2000 rows in steps of 8
    assert literals(step)["task_name"] == "ChatCompletion"


def test_every_machine_is_named_serverless_or_by_the_cluster(cloud: Cloud, parts: Parts) -> None:
    alone = pipeline_job.machines(parts)
    slots = parameters.slots_of(parts.component)
    places = {n for n in slots if n.startswith(("compute_", "instance_type_"))}
    assert places <= set(alone)
    assert alone["compute_finetune"] == "serverless"
    assert alone["instance_type_finetune"] == "Standard_NC24ads_A100_v4"
    assert alone["instance_type_model_evaluation"] == "Standard_NC24ads_A100_v4"
    assert alone["instance_type_preprocess"] == "Standard_E4s_v3"
    assert alone["number_of_gpu_to_use_finetuning"] == 1
    named = pipeline_job.assemble(cloud, recipe("cloud.compute=gpus", "cloud.nodes=2"))
    shared = pipeline_job.machines(named)
    assert {shared[name] for name in places if name.startswith("compute_")} == {"gpus"}
    assert shared["num_nodes_finetune"] == 2
    assert (
        sent(pipeline_job.build(named, FILES, name="phi-1", tags={}))["settings"]["default_compute"]
        == "gpus"
    )


def test_a_machine_of_cloud_parameters_goes_over_ours(parts: Parts) -> None:
    chosen = {**parts.merged.values, "instance_type_preprocess": "Standard_DS4_v2"}
    merged = dataclasses.replace(parts.merged, values=chosen)
    found = pipeline_job.machines(dataclasses.replace(parts, merged=merged))
    assert found["instance_type_preprocess"] == "Standard_DS4_v2"


def test_the_text_pipeline_is_told_the_columns_of_our_rows(cloud: Cloud) -> None:
    wants = recipe(
        "cloud.task=text",
        "cloud.model=azureml/mistralai-Mistral-7B-v01",
        "cloud.instance_type=Standard_NC48ads_A100_v4",
    )
    parts = pipeline_job.assemble(cloud, wants)
    assert parts.component.name == "text_generation_pipeline"
    (step,) = sent(pipeline_job.build(parts, FILES, name="text-1", tags={}))["jobs"].values()
    assert literals(step)["text_key"] == "text"
    assert literals(step)["ground_truth_key"] == "ground_truth"
    assert literals(step)["number_of_gpu_to_use_finetuning"] == "2"


def test_gpt_oss_goes_to_the_pytorch_input_of_the_azureml_component(cloud: Cloud) -> None:
    parts = pipeline_job.assemble(cloud, recipe("cloud.model=azureml-openai-oss/gpt-oss-20b"))
    (step,) = sent(pipeline_job.build(parts, FILES, name="oss-1", tags={}))["jobs"].values()
    assert step["inputs"]["pytorch_model_path"]["uri"] == (
        "azureml://registries/azureml-openai-oss/models/gpt-oss-20b/versions/6"
    )
    assert "mlflow_model_path" not in step["inputs"]
    assert "/registries/azureml/components/" in step["componentId"]


def test_a_t4_for_a_model_of_20_billion_parameters_is_refused_before_anything_is_sent(
    cloud: Cloud,
) -> None:
    wants = recipe(
        "cloud.model=azureml-openai-oss/gpt-oss-20b", "cloud.instance_type=Standard_NC4as_T4_v3"
    )
    with pytest.raises(UsageError, match="Standard_NC4as_T4_v3 cannot train gpt-oss-20b"):
        pipeline_job.assemble(cloud, wants)


def test_the_name_changes_with_parameters_and_rows_but_not_with_the_machine(
    cloud: Cloud, parts: Parts
) -> None:
    name = parts.base_name("rows")
    assert name.startswith("phi-3-mini-ultrachat-")
    assert name != parts.base_name("other rows")
    larger = pipeline_job.assemble(
        cloud, recipe("cloud.instance_type=Standard_NC48ads_A100_v4"), rows=4000
    )
    assert larger.base_name("rows") == name
    changed = pipeline_job.assemble(cloud, recipe("training.learning_rate=1e-5"), rows=2000)
    assert changed.base_name("rows") != name


def test_a_registry_or_model_that_is_not_there_is_said(cloud: Cloud) -> None:
    with pytest.raises(UsageError, match="there is no registry nowhere"):
        registries.model(cloud, registries.parse("nowhere/Phi-4"))
    with pytest.raises(UsageError, match="registry azureml has no model Phi-99@latest"):
        registries.model(cloud, registries.parse("azureml/Phi-99"))
    with pytest.raises(UsageError, match="registry azureml has no model Phi-4:77"):
        registries.model(cloud, registries.parse("azureml/Phi-4:77"))


def test_a_model_is_found_by_version_and_by_label(cloud: Cloud) -> None:
    assert registries.model(cloud, registries.parse("azureml/Phi-4:8")).version == "8"
    assert registries.model(cloud, registries.parse("azureml/Phi-4@latest")).version == "8"
    found = registries.component(cloud, "chat_completion_pipeline", "0.0.82")
    assert found.version == "0.0.82"


def test_the_plan_offline_and_online(cloud: Cloud) -> None:
    from scripts.azure.routes import registry_pipeline

    path = Path("recipes/phi-3-mini-ultrachat.yaml")
    offline = registry_pipeline.plan(recipe(), path, None)
    assert offline.values["train"]["ceiling"] == pytest.approx(4 * 3.673)
    assert "costs at most $14.69" in offline.train.line
    assert any("retired" in value for _, value in offline.rows)
    online = registry_pipeline.plan(recipe(), path, cloud)
    assert online.values["pipeline"] == "chat_completion_pipeline 0.0.82"
    assert online.values["foundation"]["version"] == "15"
    assert online.label == "rehearsed, not Azure"
    told = [value for what, value in online.rows if what == "note"]
    assert any("scores no test rows" in value for value in told)
    assert any(value.startswith("learning_rate_min") for value in told)

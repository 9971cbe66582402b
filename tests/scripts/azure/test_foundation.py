import dataclasses
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from scripts.azure import client, foundation, prices, registries
from scripts.azure.foundation import Foundation
from scripts.errors import UsageError
from tests.scripts.azure.stand_ins import cloud_of
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

PHI = ROOT / "recipes/phi-3-mini-ultrachat.yaml"
TAGS = {
    "finetune_compute_allow_list": "['Standard_NC24ads_A100_v4', 'Standard_NC96ads_A100_v4']",
    "inference_compute_allow_list": '["Standard_NC24ads_A100_v4"]',
    "model_specific_defaults": "{'apply_lora': 'true', 'precision': 16, 'learning_rate': '5e-6'}",
    "license": "mit",
    "FinetuneRetirementDate": "2025-08-30",
}
PROPERTIES = {
    "finetuning-tasks": "chat-completion, text-generation",
    "finetune-min-sku-spec": "24|1|220|64",
}


def recipe(*overrides: str) -> Recipe:
    return recipes.load(PHI, overrides, {})


def entity(**changed: Any) -> Any:
    values = {"name": "Phi", "version": "15", "type": "mlflow_model"}
    return SimpleNamespace(**{**values, "tags": TAGS, "properties": PROPERTIES, **changed})


def known(model: str) -> Foundation:
    found = foundation.known(recipe(f"cloud.model={model}"))
    assert found is not None
    return found


def test_tags_and_properties_of_a_registry_are_read() -> None:
    found = foundation.of_entity(entity(), "azureml")
    assert found.id == "azureml://registries/azureml/models/Phi/versions/15"
    assert found.input == "mlflow_model_path"
    assert found.tasks == ("chat-completion", "text-generation")
    assert found.train_on == ("Standard_NC24ads_A100_v4", "Standard_NC96ads_A100_v4")
    assert found.serve_on == ("Standard_NC24ads_A100_v4",)
    assert found.defaults == {"apply_lora": "true", "precision": 16, "learning_rate": "5e-6"}
    least = found.train_minimum
    assert least
    assert (least.cores, least.gpus, least.memory_gib, least.disk_gib) == (24, 1, 220, 64)


def test_the_registry_goes_over_the_catalog_which_fills_what_it_does_not_say() -> None:
    base = known("azureml/Phi-3-mini-4k-instruct")
    found = foundation.of_entity(entity(properties={}), "azureml", base)
    assert found.train_on == ("Standard_NC24ads_A100_v4", "Standard_NC96ads_A100_v4")
    assert found.tasks == ("chat-completion",)
    assert found.billions == 3.8


def test_a_custom_model_goes_to_the_other_input() -> None:
    assert known("azureml-openai-oss/gpt-oss-20b").input == "pytorch_model_path"
    assert foundation.of_entity(entity(type="custom_model"), "r").input == "pytorch_model_path"


@pytest.mark.parametrize("text", ["", "24|1|220", "a|b|c|d"])
def test_a_minimum_of_another_form_is_none(text: str) -> None:
    assert foundation.minimum(text) is None


def test_every_row_of_the_catalog_can_be_read() -> None:
    rows = yaml.safe_load((ROOT / "azure/catalog.yml").read_text())["models"]
    for name in rows:
        found = known(name)
        assert found.source.startswith("azure/catalog.yml: ")
        for machine in (*found.train_on, *found.serve_on):
            assert machine in prices.table().instances
    assert foundation.known(recipe("cloud.model=azureml/no-such-model")) is None


def test_a_machine_that_is_not_allowed_is_refused_with_the_cheapest_that_is() -> None:
    with pytest.raises(UsageError) as refused:
        foundation.check_training(
            known("azureml/Phi-3-mini-4k-instruct"),
            recipe(),
            prices.find("Standard_NC40ads_H100_v5"),
        )
    assert "allows only Standard_NC24ads_A100_v4, " in str(refused.value)
    assert "the cheapest that does is Standard_NC24ads_A100_v4 ($3.67 per hour)" in str(
        refused.value
    )


def test_a_t4_cannot_train_a_model_of_20_billion_parameters() -> None:
    with pytest.raises(UsageError) as refused:
        foundation.check_training(
            known("azureml-openai-oss/gpt-oss-20b"), recipe(), prices.find("Standard_NC4as_T4_v3")
        )
    assert "20.9 billion parameters need about 49 GiB of GPU memory, and one T4 has 16" in str(
        refused.value
    )
    assert "set cloud.instance_type" in str(refused.value)


def test_a_t4_cannot_serve_it_either() -> None:
    model = known("azureml-openai-oss/gpt-oss-20b")
    with pytest.raises(UsageError, match=r"cannot serve gpt-oss-20b.*set cloud\.serve_instance"):
        foundation.check_serving(model, recipe("cloud.serve_instance_type=Standard_NC4as_T4_v3"))


def test_one_gpu_does_not_meet_a_minimum_of_two() -> None:
    model = dataclasses.replace(known("azureml/mistralai-Mistral-7B-v01"), train_on=())
    with pytest.raises(UsageError, match=r"the model needs 2 GPUs \(it has 1\) and 440 GiB"):
        foundation.check_training(
            model, recipe("cloud.task=text"), prices.find("Standard_NC40ads_H100_v5")
        )


def test_a_machine_without_a_gpu_is_refused() -> None:
    blank = Foundation(name="any", registry="r", version="1")
    with pytest.raises(UsageError, match="it has no GPU"):
        foundation.check_training(blank, recipe(), prices.find("Standard_E4s_v3"))


def test_a_task_that_the_model_does_not_name_is_refused() -> None:
    machine = prices.find("Standard_NC48ads_A100_v4")
    model = known("azureml/mistralai-Mistral-7B-v01")
    with pytest.raises(UsageError, match="cannot be fine-tuned for chat-completion"):
        foundation.check_training(model, recipe(), machine)
    with pytest.raises(UsageError, match="its registry names no task"):
        foundation.check_training(
            known("azureml/mistralai-Mistral-7B-Instruct-v0-3"), recipe(), machine
        )


def test_a_retired_model_is_warned_of_and_goes_on() -> None:
    model = known("azureml/Phi-3-mini-4k-instruct")
    notes = foundation.check_training(model, recipe(), prices.find("Standard_NC24ads_A100_v4"))
    assert any("retired: since 2025-08-30" in note for note in notes)
    assert not model.is_retired(date(2025, 8, 29))
    assert model.is_retired(date(2025, 8, 30))


def cluster(state: str, size: str = "Standard_NC24ads_A100_v4", nodes: int = 2) -> Any:
    properties = {"vmSize": size, "scaleSettings": {"maxNodeCount": nodes}}
    found = {"properties": {"provisioningState": state, "properties": properties}}
    return cloud_of(get=lambda path, **_: found, ml=listing())


def listing(**gpus: int) -> Any:
    """An SDK client that lists the region's machines with their GPUs."""
    sizes = [SimpleNamespace(name=name, gpus=count) for name, count in gpus.items()]
    return SimpleNamespace(compute=SimpleNamespace(list_sizes=lambda: sizes))


def test_gpus_are_counted_as_the_region_lists_the_machine() -> None:
    cloud = cloud_of(ml=listing(standard_nc24ads_a100_v4=3))
    assert foundation.machine(cloud, recipe()).gpus == 3
    assert foundation.machine(cloud_of(ml=listing()), recipe()).gpus == 1


def test_the_clusters_machine_counts_where_there_is_a_cluster() -> None:
    wants = recipe("cloud.compute=gpus")
    found = foundation.machine(cluster("Succeeded", "STANDARD_NC48ADS_A100_V4"), wants)
    assert (found.name, found.gpus) == ("Standard_NC48ads_A100_v4", 2)
    assert foundation.machine(None, wants).name == "Standard_NC24ads_A100_v4"


def test_a_cluster_that_failed_or_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="cluster gpus is Failed"):
        foundation.machine(cluster("Failed"), recipe("cloud.compute=gpus"))
    with pytest.raises(UsageError, match="at most 1 nodes, and the recipe wants 2"):
        foundation.machine(
            cluster("Succeeded", nodes=1), recipe("cloud.compute=gpus", "cloud.nodes=2")
        )


def test_a_cluster_that_is_not_there_is_made_with_the_recipes_machines() -> None:
    def get(path: str, **_: Any) -> Any:
        raise client.NotFound("none", 404)

    found = foundation.machine(cloud_of(get=get, ml=listing()), recipe("cloud.compute=gpus"))
    assert found.name == "Standard_NC24ads_A100_v4"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("azureml/Phi-4", "azureml/Phi-4@latest"),
        ("azureml/Phi-4@stable", "azureml/Phi-4@stable"),
        ("azureml-meta/Meta-Llama-3-8B:8", "azureml-meta/Meta-Llama-3-8B:8"),
    ],
)
def test_a_model_is_named_by_registry_name_and_label_or_version(text: str, place: str) -> None:
    assert str(registries.parse(text)) == place


@pytest.mark.parametrize("text", ["Phi-4", "azureml/", "azureml/Phi-4:1@latest", "a/b/c"])
def test_another_form_of_a_models_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="registry/name"):
        registries.parse(text)

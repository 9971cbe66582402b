import dataclasses
from typing import Any

import pytest

from scripts.azure import parameters
from scripts.azure.parameters import Slot, merge
from scripts.errors import UsageError
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

TEXT = ("true", "false")
SLOTS = {
    "apply_lora": Slot(type="string", enum=TEXT),
    "apply_deepspeed": Slot(type="string", enum=TEXT),
    "deepspeed_stage": Slot(type="string", enum=("2", "3")),
    "precision": Slot(type="string", enum=("32", "16")),
    "lora_r": Slot(type="integer"),
    "num_train_epochs": Slot(type="integer", minimum=1),
    "per_device_train_batch_size": Slot(type="integer", minimum=1),
    "gradient_accumulation_steps": Slot(type="integer"),
    "learning_rate": Slot(type="number"),
    "lr_scheduler_type": Slot(type="string", enum=("linear", "cosine", "constant")),
    "warmup_steps": Slot(type="integer"),
    "max_seq_length": Slot(type="integer"),
    "save_total_limit": Slot(type="integer"),
    "compute_finetune": Slot(type="string"),
}
"""A few inputs of chat_completion_pipeline, with its types and choices."""
DEFAULTS = {
    "apply_lora": "true",
    "precision": 16,
    "deepspeed_stage": 3,
    "learning_rate": "5e-6",
    "learning_rate_min": "5e-7",
    "learning_rate_max": "5e-5",
    "save_total_limit": 1,
}


def recipe(*overrides: str) -> Recipe:
    return recipes.load(ROOT / "recipes/phi-3-mini-ultrachat.yaml", overrides, {})


def with_parameters(**given: Any) -> Recipe:
    found = recipe()
    return dataclasses.replace(found, cloud=dataclasses.replace(found.cloud, parameters=given))


def test_a_models_default_that_the_pipeline_does_not_know_is_left_out_and_told() -> None:
    merged = merge(DEFAULTS, recipe(), SLOTS)
    assert "learning_rate_min" not in merged.values
    assert "learning_rate_max" not in merged.values
    told = [note for note in merged.notes if note.startswith("learning_rate_m")]
    assert told == [
        "learning_rate_min 5e-7 is the model's default, but no input of the pipeline",
        "learning_rate_max 5e-5 is the model's default, but no input of the pipeline",
    ]


def test_what_the_pipeline_wants_as_text_becomes_text() -> None:
    values = merge(DEFAULTS, recipe(), SLOTS).values
    assert values["apply_lora"] == "true"
    assert values["precision"] == "16"
    assert values["deepspeed_stage"] == "2"
    assert values["learning_rate"] == 5e-6
    assert values["num_train_epochs"] == 1
    assert type(values["lora_r"]) is int


def test_the_recipe_goes_over_the_models_defaults_and_the_difference_is_told() -> None:
    merged = merge(DEFAULTS, recipe("training.keep_checkpoints=5"), SLOTS)
    assert merged.values["save_total_limit"] == 5
    assert "save_total_limit 5 is the recipe's; the model's own default 1" in merged.notes


def test_cloud_parameters_go_over_both() -> None:
    values = merge(DEFAULTS, with_parameters(deepspeed_stage=3, learning_rate=1e-5), SLOTS).values
    assert values["deepspeed_stage"] == "3"
    assert values["learning_rate"] == 1e-5


def test_an_unknown_cloud_parameter_names_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"cloud\.parameters\.lora_rank is no input.*lora_r\."):
        merge({}, with_parameters(lora_rank=4), SLOTS)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"precision": 8}, "precision is 8 .of cloud.parameters.: the pipeline takes 32 or 16"),
        ({"lora_r": "many"}, "lora_r 'many' .* must be of type integer"),
        ({"lora_r": 1.5}, "must be of type integer"),
        ({"num_train_epochs": 0}, "the pipeline takes 1 to any number"),
    ],
)
def test_a_value_that_the_service_would_refuse_is_refused_here(
    given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        merge({}, with_parameters(**given), SLOTS)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [("method=dpo", "learn answers only"), ("tuning=qlora", "hold no base in 4 bits")],
)
def test_what_the_pipelines_cannot_do_is_said(override: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        merge({}, recipe(override), SLOTS)


def test_a_learning_rate_outside_the_models_range_is_told() -> None:
    merged = merge(DEFAULTS, recipe("training.learning_rate=1e-3"), SLOTS)
    assert any("learning_rate 0.001 is above 5e-05" in note for note in merged.notes)


def test_the_warm_up_is_reckoned_in_steps() -> None:
    found = recipe("training.warmup=0.2", "training.packs_per_step=8", "training.epochs=2")
    assert parameters.warmup_steps(found, rows=800, gpus=2) == 20
    assert parameters.warmup_steps(recipe("training.warmup=7"), rows=0, gpus=1) == 7
    assert parameters.warmup_steps(recipe("training.max_steps=50"), rows=0, gpus=1) == 10


def test_part_of_an_epoch_becomes_a_whole_one_and_is_told() -> None:
    merged = merge({}, recipe("training.epochs=0.5"), SLOTS)
    assert merged.values["num_train_epochs"] == 1
    assert any("training.epochs 0.5 becomes 1" in note for note in merged.notes)


def test_the_name_in_the_studio_says_by_what_runs_differ() -> None:
    found = recipe("training.packs_per_step=8", "training.keep_checkpoints=1")
    values = merge({}, found, SLOTS).values
    assert parameters.display_name(found, "Phi-3-mini-4k-instruct", values, 2) == (
        "Phi-3-mini-4k-instruct-phi-3-mini-ultrachat-bs16-cosine-ds2-lora-save_limit1-seqlen2048"
    )

"""A fine-tuning job of the model catalog, as `az ml` writes it and as Azure's API takes it.

    filled = fill(name=name, recipe=recipe, model=foundation.id, rows=…, guid=…)
    body = request(filled, workspace_id)

`fill` reads azure/finetuning-job.yml and sets what the recipe decides; the result is a file that
`az ml job create` takes. `request` makes the body of the PUT of it, which azure-ai-ml 1.34 cannot
send (finetuning.py). Nothing here calls Azure.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from scripts.azure import names, specs
from scripts.azure.specs import Document
from scripts.azure.tags import own
from scripts.errors import UsageError
from train.recipe import Recipe

TASKS = {"chat": "ChatCompletion", "text": "TextCompletion"}
"""Of cloud.task, by the API's name; the catalog calls them chat-completion and text-generation."""
YAML_TASKS = {"chat": "chat_completion", "text": "text_completion"}
SERVERLESS = "serverless"
"""As cloud.instance_type: the service trains on its own machines."""
OUTPUT = "registered_model"
"""The job's only output."""
SHOWN = ("num_train_epochs", "per_device_train_batch_size", "learning_rate", "max_seq_length")
"""What Azure's samples and its component for the service's own machines take
(azureml-assets, finetune_acft_hf_nlp/components_v2, version 0.0.29)."""
GUID_DIGITS = 8


def fill(
    *,
    name: str,
    recipe: Recipe,
    model: str,
    data: Mapping[str, str],
    guid: str,
    tags: Mapping[str, str] | None = None,
) -> Document:
    """The job. `model` is the registry's id of it, `data` holds `train` and `validation`.

    UsageError where there are no rows for validation, which the service wants always.
    """
    cloud = recipe.cloud
    names.check_job(name)
    if not data.get("validation"):
        raise UsageError(
            "a fine-tuning job needs rows for validation: set data.validation, or "
            "data.validation_share above 0."
        )
    filled = specs.document("finetuning-job")
    filled.update(
        name=name,
        display_name=name,
        experiment_name=recipe.name,
        task=YAML_TASKS[cloud.task],
        training_data=data["train"],
        validation_data=data["validation"],
        hyperparameters=hyperparameters(recipe),
        tags=own(tags),
    )
    filled["model"]["path"] = model
    filled["outputs"][OUTPUT]["name"] = output_name(recipe, guid)
    del filled["resources"], filled["queue_settings"]
    if cloud.compute:
        names.check_compute(cloud.compute)
        filled["compute"] = f"azureml:{cloud.compute}"
        filled["identity"] = {"type": "managed"}  # the cluster's reads the rows, writes the model
    elif not hosted(recipe):
        filled["resources"] = {"instance_types": [cloud.instance_type]}
        filled["queue_settings"] = {"job_tier": "spot" if cloud.spot else "standard"}
    return filled


def hosted(recipe: Recipe) -> bool:
    """Whether the service trains on its own machines, and bills by the token."""
    return not recipe.cloud.compute and recipe.cloud.instance_type in ("", SERVERLESS)


def output_name(recipe: Recipe, guid: str) -> str:
    """Name of the model that the service registers, new for every job."""
    return f"{names.slug(names.model_name(recipe))}-{guid.replace('-', '')[:GUID_DIGITS]}"


def hyperparameters(recipe: Recipe) -> dict[str, str]:
    """What the recipe says of training, by the service's names; all of it as text."""
    training = recipe.training
    values: dict[str, Any] = {
        "num_train_epochs": math.ceil(training.epochs),  # it counts whole ones
        "per_device_train_batch_size": training.packs_per_step,
        "learning_rate": training.learning_rate,
        "max_seq_length": training.max_length,
        **recipe.cloud.parameters,
    }
    return {key: as_text(value) for key, value in values.items()}


def as_text(value: Any) -> str:
    """The value as the service reads it: `0.00002`, `true`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    return str(value)


def notes(recipe: Recipe) -> list[str]:
    """What of the recipe the service does not do, or may not know; a sentence each."""
    training, said = recipe.training, []
    if training.epochs != math.ceil(training.epochs):
        said.append(
            f"training.epochs is {training.epochs:g}: the service counts whole epochs, so it "
            f"trains {math.ceil(training.epochs)}"
        )
    if training.max_steps > 0:
        said.append(
            f"training.max_steps is {training.max_steps}: the service knows no steps and trains by "
            "epochs"
        )
    said.extend(
        f"cloud.parameters.{key}: no sample of the service has it, so it may refuse it"
        for key in recipe.cloud.parameters
        if key not in SHOWN
    )
    if recipe.cloud.nodes > 1:
        said.append(f"cloud.nodes is {recipe.cloud.nodes}: the service takes one machine")
    return said


def check(recipe: Recipe) -> None:
    """UsageError for what the service cannot learn."""
    if recipe.method != "sft":
        raise UsageError(
            f"method is {recipe.method}, but a fine-tuning job learns answers only (sft): set "
            "cloud.route to command_job for it."
        )
    if recipe.training.max_steps == -1 and recipe.training.epochs < 1:
        raise UsageError(
            f"training.epochs is {recipe.training.epochs:g}: a fine-tuning job makes whole passes "
            "over the rows; set 1 or more."
        )


def request(filled: Document, workspace: str) -> Document:
    """The body of the PUT; `workspace` is its ARM id."""
    output = filled["outputs"][OUTPUT]["name"]
    task = {YAML_TASKS[key]: name for key, name in TASKS.items()}[filled["task"]]
    properties: Document = {
        "jobType": "FineTuning",
        "displayName": filled["display_name"],
        "description": filled["description"],
        "experimentName": filled["experiment_name"],
        "tags": filled["tags"],
        "properties": {},
        "fineTuningDetails": {
            "modelProvider": "Custom",
            "taskType": task,
            "model": {"jobInputType": "mlflow_model", "uri": filled["model"]["path"]},
            "trainingData": _data(filled["training_data"], workspace),
            "validationData": _data(filled["validation_data"], workspace),
            "hyperParameters": filled["hyperparameters"],
        },
        "outputs": {OUTPUT: {"jobOutputType": "mlflow_model", "assetName": output}},
    }
    if compute := filled.get("compute"):
        properties["computeId"] = f"{workspace}/computes/{compute.removeprefix('azureml:')}"
        properties["identity"] = {"identityType": "Managed"}
    if resources := filled.get("resources"):
        properties["resources"] = {"instanceTypes": resources["instance_types"]}
        properties["queueSettings"] = {"jobTier": filled["queue_settings"]["job_tier"].capitalize()}
    return {"properties": properties}


def _data(place: str, workspace: str) -> Document:
    """A data asset `azureml:name:version` by its ARM id, as an input of one file."""
    name, _, version = place.removeprefix("azureml:").partition(":")
    return {"jobInputType": "uri_file", "uri": f"{workspace}/data/{name}/versions/{version}"}

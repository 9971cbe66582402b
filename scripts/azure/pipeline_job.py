"""The job of a registry's fine-tuning pipeline: its inputs, its name, and the model that it leaves.

    parts = assemble(cloud, recipe, counts)     # model, component, machine, parameters: all read
    job = build(parts, files, name=name, tags=tags)
    made = register(cloud, job, recipe, tags)

Every input that says where a step runs is given, so that none falls back to the component's own
defaults (V100 machines, which are hardly to be had any more).
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.azure import (
    download,
    foundation,
    jobs,
    models,
    names,
    parameters,
    registries,
    retry,
    specs,
)
from scripts.azure.client import Cloud
from scripts.azure.foundation import Foundation
from scripts.azure.models import Registered
from scripts.azure.parameters import Merged
from scripts.azure.prices import Instance
from scripts.azure.tags import BYTES, JOB, own
from scripts.console import say
from scripts.errors import CloudError, UsageError
from train.recipe import Recipe

if TYPE_CHECKING:
    from azure.ai.ml.entities import PipelineJob

PIPELINES = {"chat": "chat_completion_pipeline", "text": "text_generation_pipeline"}
"""Component of the registry `azureml`, by cloud.task."""
OUTPUT = "trained_model"
"""Output of our job; the component's is mlflow_model_folder."""
EVALUATED = "evaluation_result"
"""Output of a component whose evaluation steps are switched on."""
SERVERLESS = "serverless"
GPU_STEPS = ("finetune", "model_evaluation")
CPU_STEPS = ("model_import", "preprocess")
CPU_MACHINE = "Standard_E4s_v3"
"""For the steps that only copy and tokenise, in serverless; as large as the component's own choice,
of a family that is still sold."""
SHARED_MEMORY = "16g"
"""Of the training's processes; the component's 5g are little for several GPUs."""
TEXT_KEYS = {"text_key": "text", "ground_truth_key": "ground_truth"}
"""Columns of our rows, which the text pipeline asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All that a job is made of, but for its rows."""

    recipe: Recipe
    model: Foundation
    component: Any
    """The SDK's entity."""
    instance: Instance
    merged: Merged
    notes: tuple[str, ...]

    @property
    def gpus(self) -> int:
        """Of all machines."""
        return max(1, self.instance.gpus) * self.recipe.cloud.nodes

    @property
    def title(self) -> str:
        return parameters.display_name(self.recipe, self.model.name, self.merged.values, self.gpus)

    def base_name(self, rows: str) -> str:
        """The job's name: the same model, component, parameters and rows give the same name."""
        made_of = f"{self.recipe.cloud.route} {self.model.id} {self.component.id}"
        text = json.dumps(dict(self.merged.values), sort_keys=True, default=str)
        given = hashlib.sha256(text.encode()).hexdigest()
        return names.job_name(self.recipe.name, made_of, given, rows)


def assemble(cloud: Cloud, recipe: Recipe, rows: int = 0) -> Parts:
    """Read model, component and machine, and hold them against each other.

    `rows` are those to train on, for a warm-up that is a share of the steps. UsageError where they
    do not go together.
    """
    model = foundation.read(cloud, recipe)
    instance = foundation.machine(cloud, recipe)
    notes = foundation.check_training(model, recipe, instance)
    component = registries.component(cloud, PIPELINES[recipe.cloud.task])
    slots = parameters.slots_of(component)
    gpus = max(1, instance.gpus) * recipe.cloud.nodes
    merged = parameters.merge(model.defaults, recipe, slots, rows=rows, gpus=gpus)
    if model.input not in slots:
        raise UsageError(
            f"{component.name} takes no {model.input}, so it cannot train {model.name}: take "
            "cloud.route=command_job."
        )
    return Parts(
        recipe=recipe,
        model=model,
        component=component,
        instance=instance,
        merged=merged,
        notes=(*notes, *merged.notes, *_unscored(recipe, component), *_dedicated(recipe)),
    )


def _unscored(recipe: Recipe, component: Any) -> tuple[str, ...]:
    """What is to be known of test rows where the pipeline has no step that scores them."""
    if not recipe.data.test or EVALUATED in component.outputs:
        return ()
    return (
        f"data.test is handed over, but {component.name} {component.version} scores no test rows; "
        "its evaluation is the loss on the validation rows",
    )


def _dedicated(recipe: Recipe) -> tuple[str, ...]:
    """What becomes of cloud.spot: only a cluster's machines can be of low priority."""
    if not recipe.cloud.spot or recipe.cloud.compute:
        return ()
    return ("cloud.spot: a pipeline's serverless steps are dedicated; name a cluster for it",)


def machines(parts: Parts) -> dict[str, Any]:
    """Every input of the component that says where a step runs, and with how many GPUs."""
    settings = parts.recipe.cloud
    given: dict[str, Any] = {}
    for step in (*CPU_STEPS, *GPU_STEPS):
        given[f"compute_{step}"] = settings.compute or SERVERLESS
        alone = parts.instance.name if step in GPU_STEPS else CPU_MACHINE
        given[f"instance_type_{step}"] = parts.instance.name if settings.compute else alone
    given["num_nodes_finetune"] = settings.nodes
    given["number_of_gpu_to_use_finetuning"] = max(1, parts.instance.gpus)
    given["shm_size_finetune"] = SHARED_MEMORY
    chosen = {k: v for k, v in parts.merged.values.items() if k.startswith(parameters.MACHINES)}
    slots = parameters.slots_of(parts.component)
    return {key: value for key, value in {**given, **chosen}.items() if key in slots}


def inputs(parts: Parts, files: Mapping[str, str]) -> dict[str, Any]:
    """All inputs of the component: model, rows (`azureml:` assets by set), machines, parameters."""
    from azure.ai.ml import Input

    slots = parameters.slots_of(parts.component)
    given: dict[str, Any] = {
        parts.model.input: Input(type=parts.model.kind, path=parts.model.id),
        **machines(parts),
        **{k: v for k, v in TEXT_KEYS.items() if k in slots},
        **{k: v for k, v in parts.merged.values.items() if not k.startswith(parameters.MACHINES)},
    }
    for kind, path in files.items():
        given[f"{kind}_file_path"] = Input(type="uri_file", path=path)
    needed = [name for name, slot in slots.items() if not slot.optional and name not in given]
    fixed = {name: slots[name].enum[0] for name in needed if len(slots[name].enum) == 1}
    if missing := [name for name in needed if name not in fixed]:
        raise UsageError(
            f"{parts.component.name} wants {', '.join(missing)}, which nothing sets: add "
            "cloud.parameters to the recipe."
        )
    return {**given, **fixed}


def build(
    parts: Parts, files: Mapping[str, str], *, name: str, tags: Mapping[str, str]
) -> "PipelineJob":
    """The pipeline job, of one step: the registry's pipeline."""
    from azure.ai.ml import Output
    from azure.ai.ml.dsl import pipeline

    names.check_job(name)
    for talkative in specs.TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.ERROR)
    settings = parts.recipe.cloud
    given = inputs(parts, files)

    def fine_tuning() -> dict[str, Any]:
        step = parts.component(**given)
        step.name = parts.component.name
        return {OUTPUT: step.outputs.mlflow_model_folder}

    made_of: Any = pipeline()  # the SDK's decorator has no types
    job: Any = made_of(fine_tuning)()
    job.name = name
    job.display_name = parts.title
    job.experiment_name = parts.recipe.name
    spot = settings.spot and bool(settings.compute)
    machine = jobs.machine_tag(parts.instance.name, settings.nodes, spot=spot)
    job.tags = own({**tags, **machine})
    job.outputs[OUTPUT] = Output(
        type="mlflow_model",
        path=f"azureml://datastores/workspaceblobstore/paths/homeport/{name}/{OUTPUT}",
    )
    job.settings.default_compute = settings.compute or SERVERLESS
    job.settings.force_rerun = True  # a result of another job is no result of this one
    job.settings.continue_on_step_failure = False
    made: PipelineJob = job
    return made


def register(
    cloud: Cloud, job: str, recipe: Recipe, tags: Mapping[str, str], *, output: str = OUTPUT
) -> Registered:
    """Register the job's MLflow model, unless that was done; its version is the time.

    CloudError where the job has left no MLflow model.
    """
    from azure.ai.ml.entities import Model

    name = names.model_name(recipe)
    if known := models.of_job(cloud, name, job):
        say(f"model:  {known.id} (registered before)")
        return known
    files = download.files(cloud, download.output(cloud, job, output))
    if not any(blob.name == "MLmodel" for blob in files):
        raise CloudError(
            f"job {job} is Completed, but its output {output} holds no MLflow model, so none was "
            f"registered: make cloud-logs JOB={job}"
        )
    size = sum(blob.size for blob in files)
    entity = Model(
        name=name,
        version=time.strftime("%Y%m%d%H%M%S", time.gmtime()),
        type="mlflow_model",
        path=f"azureml://jobs/{job}/outputs/{output}",
        description=f"{recipe.cloud.model} fine-tuned by {job}",
        tags=own({**tags, JOB: job, BYTES: size}),
    )

    def found_or_made() -> Registered:
        known = models.of_job(cloud, name, job)
        if known is None:
            cloud.ml.models.create_or_update(entity)
            known = models.of_job(cloud, name, job)
        if known is None:
            raise CloudError(f"model {name} was registered, but the workspace does not list it.")
        return known

    made = retry.call(f"register model {name}", found_or_made)
    say(f"model:  {made.id} ({size / 1e6:.1f} MB in {len(files)} files)")
    return made

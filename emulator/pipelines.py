"""Pipeline jobs whose one step is a fine-tuning pipeline of a registry: accepted, and carried out.

The registry's component says which inputs there are and which steps it has; each step becomes a run
of its own below the pipeline's, with the log and metrics that it writes. What trains is the tiny
model, on the rows that were given (tuning.py). The model that the job names is looked up and left
where it is: its weights are not here. Other pipelines answer 501.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emulator import mlflow_model, parents, tuning
from emulator.azure import Azure
from emulator.http import Refusal
from emulator.parents import Log, Step
from emulator.registries import find
from emulator.store import now
from emulator.tuning import TuningError, Wanted
from emulator.work import Work, tuning_told

BINDING = re.compile(r"\$\{\{parent\.(inputs|outputs)\.(\w+)\}\}")
TASKS: dict[str, tuple[Literal["chat", "text"], str]] = {
    "chat_completion_pipeline": ("chat", "chat-completion"),
    "text_generation_pipeline": ("text", "text-generation"),
}
"""Of the pipelines that are carried out here: the form of their rows, and MLflow's name."""
FINETUNED, CONVERTED = "pytorch_model_folder", "mlflow_model_folder"
ROOT_LOG = "logs/azureml/executionlogs.txt"
HELD_OUT = 10
"""Every so many rows one is held out where no validation rows are given."""
KINDS = {"integer": int, "number": float}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The one step of a pipeline job, read."""

    key: str
    component: Mapping[str, Any]
    """The registry's componentSpec."""
    component_id: str
    values: Mapping[str, str]
    """Literal inputs, with the component's defaults for the others."""
    files: Mapping[str, str]
    """Inputs that are files, folders or models: their URIs."""
    outputs: Mapping[str, str]
    """Output of the component: output of the job."""


def accepted(azure: Azure, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The job as the service completes it; Refusal 400 where it cannot run, 501 for other jobs."""
    node = read(azure, asked)
    settings = asked.get("settings") or {}
    computes = {
        "settings.default_compute": settings.get("default_compute")
        or settings.get("defaultCompute")
    }
    computes |= {key: node.values.get(key) for key in node.values if key.startswith("compute_")}
    for what, compute in computes.items():
        if compute:
            parents.must_be_there(azure, what, compute_id(azure, str(compute)))
    for what, uri in node.files.items():
        if parents.is_ours(uri):
            parents.must_be_there(azure, f"input {what}", uri)
    return {"inputs": {}, "settings": {}, **parents.completed(azure, name, asked)}


def compute_id(azure: Azure, compute: str) -> str:
    """ARM id of a compute that is named by it, or by its name alone."""
    name = compute.removeprefix("azureml:").rpartition("/")[2]
    return f"{azure.settings.workspace_id}/computes/{name}"


def machine(azure: Azure, asked: Mapping[str, Any]) -> str:
    """The machine that the job trains on."""
    try:
        return read(azure, asked).values.get("instance_type_finetune", "")
    except Refusal:
        return ""


def read(azure: Azure, asked: Mapping[str, Any]) -> Node:
    """The step of a pipeline job; Refusal where it is not as its component says."""
    jobs = asked.get("jobs") or {}
    if len(jobs) != 1:
        raise Refusal(501, "NotEmulated", "Of pipelines only those of one step are run here.")
    key, job = next(iter(jobs.items()))
    component_id = str(job.get("componentId") or "")
    component = find(azure, component_id)
    if component is None and component_id.startswith("azureml://registries/"):
        raise Refusal(400, "UserError", f"Component {component_id} was not found.")
    spec = component["properties"]["componentSpec"] if component else {}
    if spec.get("name") not in TASKS:
        known = ", ".join(TASKS)
        raise Refusal(501, "NotEmulated", f"Of pipelines only {known} are run here.")
    values, files = _inputs(key, job, spec, asked.get("inputs") or {})
    bound = {}
    for output, said in (job.get("outputs") or {}).items():
        if output not in spec["outputs"]:
            raise _unknown(key, "output", output, spec["outputs"])
        text = said if isinstance(said, str) else str((said or {}).get("value") or "")
        if at := BINDING.fullmatch(text):
            bound[output] = at[2]
    return Node(
        key=key,
        component=spec,
        component_id=component_id,
        values=values,
        files=files,
        outputs=bound,
    )


def _inputs(
    key: str, job: Mapping[str, Any], spec: Mapping[str, Any], parent: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Literals and files by input; Refusal 400 for what the component does not take."""
    slots = spec["inputs"]
    values = {
        name: str(slot["default"])
        for name, slot in slots.items()
        if slot.get("default") is not None
    }
    files: dict[str, str] = {}
    for name, said in (job.get("inputs") or {}).items():
        if name not in slots:
            raise _unknown(key, "input", name, slots)
        slot = slots[name]
        told = said if isinstance(said, Mapping) else {"value": said}
        if at := BINDING.fullmatch(str(told.get("value") or "")):
            told = parent.get(at[2]) or {}
        if uri := told.get("uri"):
            files[name] = str(uri)
            continue
        value = str(told.get("value"))
        if slot.get("enum") and value not in slot["enum"]:
            listed = ", ".join(slot["enum"])
            raise _wrong(key, name, f"{value!r} is not in the list of allowed values: {listed}")
        if kind := KINDS.get(str(slot["type"])):
            try:
                kind(value)
            except ValueError:
                raise _wrong(key, name, f"{value!r} is not of type {slot['type']}") from None
        values[name] = value
    for name, slot in slots.items():
        optional = slot.get("optional") in (True, "true", "True")
        if not optional and name not in values and name not in files:
            raise _wrong(key, name, "it is required, but has no value")
    return values, files


def _unknown(key: str, what: str, name: str, known: Mapping[str, Any]) -> Refusal:
    return Refusal(
        400,
        "UserError",
        f"Step {key}: the component has no {what} '{name}'. It has: {', '.join(sorted(known))}.",
    )


def _wrong(key: str, name: str, why: str) -> Refusal:
    return Refusal(400, "UserError", f"Step {key}: input '{name}' is not valid: {why}.")


class Pipeline(Work):
    """One pipeline job."""

    def __init__(self, azure: Azure, job_id: str) -> None:
        super().__init__(azure, job_id)
        self._node = read(azure, self._properties)
        self._form, self._task = TASKS[self._node.component["name"]]
        self._log = Log(azure, job_id, ROOT_LOG)
        self._rows: tuple[Path, Path] | None = None
        self._tuned: tuning.Tuned | None = None

    def _work(self) -> None:
        self._record.note("Preparing")
        self._record.look_for_cancel()
        self._record.note("Running", startTimeUtc=now())
        try:
            self._say("Submitting 1 runs, first five are: " + self._node.key)
            with Step(
                self._record,
                self._record.name,
                self._node.key,
                kind="Pipeline",
                component=self._node.component_id,
            ) as node:
                for title, described in self._node.component["jobs"].items():
                    self._record.look_for_cancel()
                    self._step(node.name, title, described)
        finally:
            self._log.keep()
        self._record.note("Finalizing")

    def _say(self, text: str) -> None:
        self._log.line(f"[{now()}] {text}")

    def _step(self, parent: str, title: str, described: Mapping[str, Any]) -> None:
        resources = {
            "instanceType" if key == "instance_type" else key: self._filled(value)
            for key, value in (described.get("resources") or {}).items()
            if key == "instance_type"
        }
        compute = self._filled(described.get("compute"))
        named = compute if compute and compute.lower() != "serverless" else None
        with Step(
            self._record,
            parent,
            title,
            component=f"azureml://registries/azureml/components/{_versioned(described)}",
            compute=compute_id(self._azure, named) if named else None,
            resources=resources,
        ) as step:
            self._say(f"Running step {title} as {step.name}")
            with tuning_told(step.log, f"Step {title}"):
                self._program(title)(step)
            self._say(f"Completed step {title}")

    def _program(self, title: str) -> Callable[[Step], None]:
        """What stands for the program of a step, by the end of its name."""
        programs: dict[str, Callable[[Step], None]] = {
            "validation": self._validate,
            "model_import": self._import,
            "datapreprocess": self._preprocess,
            "finetune": self._finetune,
            "model_converter": self._convert,
        }
        for end, program in programs.items():
            if title.endswith(end):
                return program
        return lambda step: step.log.line("nothing to do here")

    def _validate(self, step: Step) -> None:
        if not self._model:
            raise TuningError(
                "Either huggingface_id, pytorch_model_path or mlflow_model_path must be given."
            )
        if "train_file_path" not in self._node.files:
            raise TuningError("Either train_file_path or train_mltable_path must be given.")
        step.log.line(f"task: {self._task}")

    def _import(self, step: Step) -> None:
        step.log.line(f"model: {self._model}")
        step.log.line("weights: the rehearsal's tiny model stands for it")

    @property
    def _model(self) -> str:
        """The model that the job starts from, as the job names it."""
        files, values = self._node.files, self._node.values
        return (
            files.get("mlflow_model_path")
            or files.get("pytorch_model_path")
            or values.get("huggingface_id", "")
        )

    def _preprocess(self, step: Step) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        found = {}
        for name in ("train", "validation", "test"):
            if uri := self._node.files.get(f"{name}_file_path"):
                to = self._folder / name
                to.mkdir(parents=True)
                found[name] = parents.fetch_rows(self._azure, f"{name}_file_path", uri, to)
        train = found["train"]
        if "validation" not in found:
            train, found["validation"] = split(train, self._folder)
            step.log.line("validation rows are split off the training rows")
        self._rows = (train, found["validation"])
        for name, file in {**found, "train": train}.items():
            step.log.line(f"{name}: {parents.count(file)} rows")

    def _finetune(self, step: Step) -> None:
        parents.pull(self._azure, self._record.job_id, self._azure.settings.train_image)
        if self._rows is None:
            raise TuningError("The rows were not prepared.")
        values = self._node.values
        train, validation = self._rows
        keys = (values.get("text_key", ""), values.get("ground_truth_key", ""))
        self._tuned = tuning.tune(
            self._azure,
            Wanted(
                name=self._record.name,
                rows=train,
                validation=validation,
                form=self._form,
                keys=keys if all(keys) else None,
                epochs=float(values["num_train_epochs"]),
                seed=int(values["seed"]),
                learning_rate=float(values["learning_rate"]),
                max_length=length(values.get("max_seq_length")),
            ),
            canceled=self._record.canceled,
            log=step.log.write,
            step=lambda told: step.metrics(measured(told), told.step),
        )
        step.metrics(summed_up(self._tuned), self._tuned.losses[-1].step)
        self._keep(step, FINETUNED, self._tuned.folder)

    def _convert(self, step: Step) -> None:
        if self._tuned is None:
            raise TuningError("There is no model to convert.")
        folder = self._folder / "mlflow"
        mlflow_model.write(self._tuned.folder, folder, task=self._task, base=self._model)
        self._keep(step, CONVERTED, folder)
        tuning.forget(self._azure, self._record.name)

    def _keep(self, step: Step, output: str, folder: Path) -> None:
        """Copy an output to where the job wants it, or to the step's own place."""
        bound = self._node.outputs.get(output)
        places = self._properties["outputs"]
        uri = (
            str(places[bound]["uri"])
            if bound in places
            else f"azureml://datastores/workspaceblobstore/paths/azureml/{step.name}/{output}/"
        )
        count = parents.upload(self._azure, folder, uri)
        kind = "mlflow_model" if output == CONVERTED else "uri_folder"
        step.output(output, kind, uri)
        step.log.line(f"{output}: {count} files to {uri}")

    def _filled(self, value: Any) -> str:
        """A value of the component's step, with the pipeline's input put in."""
        at = BINDING.fullmatch(str(value or ""))
        return self._node.values.get(at[2], "") if at else str(value or "")


def _versioned(described: Mapping[str, Any]) -> str:
    name, _, version = str(described["component"]).removeprefix("azureml:").partition(":")
    return f"{name}/versions/{version}"


def split(rows: Path, folder: Path) -> tuple[Path, Path]:
    """Every tenth row, or the last one of fewer, held out of the others."""
    lines = [line for line in rows.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    held = set(range(HELD_OUT - 1, len(lines), HELD_OUT)) or {len(lines) - 1}
    parts = (folder / "train_rest.jsonl", folder / "validation_split.jsonl")
    for part, held_out in zip(parts, (False, True), strict=True):
        kept = [line for place, line in enumerate(lines) if (place in held) == held_out]
        part.write_text("".join(f"{line}\n" for line in kept or lines), encoding="utf-8")
    return parts


def length(value: str | None) -> int | None:
    """A length in tokens; None where it is the model's own."""
    number = int(float(value)) if value else -1
    return number if number > 0 else None


def measured(step: tuning.Step) -> dict[str, float]:
    """What the trainer of the registry logs at a step."""
    values = {"loss": step.train_loss, "learning_rate": step.learning_rate, "epoch": step.epoch}
    if step.valid_loss is not None:
        values["eval_loss"] = step.valid_loss
    return values


def summed_up(tuned: tuning.Tuned) -> dict[str, float]:
    """What it logs at the end."""
    losses = [step.train_loss for step in tuned.losses]
    return {"train_loss": sum(losses) / len(losses), "epoch": tuned.losses[-1].epoch}

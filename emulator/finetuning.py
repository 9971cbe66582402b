"""Fine-tuning jobs of the model catalog: accepted, carried out, and their model registered.

One run, with its log and metrics. What trains is the tiny model, on the rows that were given
(tuning.py); what comes of it is an MLflow model of the name that the job asks for. Azure OpenAI's
fine-tuning by a job of the workspace answers 501; its own API is in openai/.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from emulator import mlflow_model, parents, tuning
from emulator.azure import Azure
from emulator.http import Refusal
from emulator.parents import Log
from emulator.pipelines import compute_id, length, measured, summed_up
from emulator.registries import find
from emulator.store import now
from emulator.tracking import note_metrics
from emulator.tuning import TuningError, Wanted
from emulator.work import Work, tuning_told

TASKS: dict[str, tuple[Literal["chat", "text"], str]] = {
    "chatcompletion": ("chat", "chat-completion"),
    "textcompletion": ("text", "text-generation"),
}
"""By the API's name of the task: the form of the rows, and the catalog's name of the task."""
NEWEST = "2024-10-01-preview"
"""Since when a job says `resources` and `queueSettings`; earlier versions leave them out."""
SINCE_NEWEST = ("resources", "queueSettings")


def accepted(azure: Azure, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The job as the service completes it; Refusal 400 where it cannot run."""
    details = asked.get("fineTuningDetails") or {}
    if str(details.get("modelProvider", "")).lower() != "custom":
        raise Refusal(501, "NotEmulated", "Of fine-tuning jobs only the catalog's are run here.")
    task = str(details.get("taskType", ""))
    if task.lower() not in TASKS:
        raise Refusal(501, "NotEmulated", f"Fine-tuning for {task} is not run here.")
    if not details.get("validationData"):
        raise Refusal(
            400,
            "UserError",
            "The validation data is required for fine-tuning with a custom model provider.",
        )
    model = str((details.get("model") or {}).get("uri") or "")
    parents.must_be_there(azure, "model", model)
    _check_task(azure, model, TASKS[task.lower()][1])
    for what in ("trainingData", "validationData"):
        uri = str(details[what].get("uri") or "")
        if parents.is_ours(uri):
            parents.must_be_there(azure, what, uri)
    if asked.get("computeId"):
        parents.must_be_there(azure, "computeId", compute_id(azure, str(asked["computeId"])))
    registered = [spec for spec in (asked.get("outputs") or {}).values() if spec.get("assetName")]
    if len(registered) != 1:
        raise Refusal(400, "UserError", "The job must have one output that names a model.")
    for key, value in (details.get("hyperParameters") or {}).items():
        if not isinstance(value, str):
            raise Refusal(400, "UserError", f"Hyperparameter {key} must be a string.")
    return parents.completed(azure, name, asked)


def _check_task(azure: Azure, model: str, task: str) -> None:
    found = find(azure, model)
    tasks = (found or {}).get("properties", {}).get("properties", {}).get("finetuning-tasks", "")
    if found and task not in [each.strip() for each in tasks.split(",")]:
        raise Refusal(
            400,
            "UserError",
            f"The model {model} does not support fine-tuning for the task {task}.",
            details=[{"code": "ModelNotSupported", "message": f"It supports: {tasks or 'none'}."}],
        )


def machine(asked: Mapping[str, Any]) -> str:
    """The machine that the job trains on, where it names one."""
    types = (asked.get("resources") or {}).get("instanceTypes") or [""]
    return str(types[0])


def shown(properties: dict[str, Any], api_version: str) -> dict[str, Any]:
    """The properties as an api-version knows them."""
    if api_version >= NEWEST:
        return properties
    return {key: value for key, value in properties.items() if key not in SINCE_NEWEST}


class FineTuning(Work):
    """One fine-tuning job."""

    def __init__(self, azure: Azure, job_id: str) -> None:
        super().__init__(azure, job_id)
        self._details: Mapping[str, Any] = self._properties["fineTuningDetails"]
        self._log = Log(azure, job_id)

    def _work(self) -> None:
        self._record.note("Preparing")
        self._record.look_for_cancel()
        try:
            with tuning_told(self._log, "Fine-tuning"):
                train, validation = self._fetch("trainingData"), self._fetch("validationData")
                parents.pull(self._azure, self._record.job_id, self._azure.settings.train_image)
                self._record.look_for_cancel()
                self._record.note("Running", startTimeUtc=now())
                tuned = self._tune(train, validation)
                self._record.note("Finalizing")
                self._register(tuned)
        finally:
            self._log.keep()

    def _fetch(self, what: str) -> Path:
        to = self._folder / what
        to.mkdir(parents=True)
        file = parents.fetch_rows(self._azure, what, str(self._details[what]["uri"]), to)
        self._log.line(f"{what}: {parents.count(file)} rows")
        return file

    @property
    def _task(self) -> tuple[Literal["chat", "text"], str]:
        return TASKS[str(self._details["taskType"]).lower()]

    def _tune(self, train: Path, validation: Path) -> tuning.Tuned:
        given: Mapping[str, str] = self._details.get("hyperParameters") or {}
        keys = (given.get("text_key", ""), given.get("ground_truth_key", ""))
        try:
            wanted = Wanted(
                name=self._record.name,
                rows=train,
                validation=validation,
                form=self._task[0],
                keys=keys if all(keys) else None,
                epochs=float(given.get("num_train_epochs", 1)),
                seed=int(given.get("seed", 42)),
                learning_rate=float(given.get("learning_rate", 0)),
                max_length=length(given.get("max_seq_length")),
            )
        except ValueError as error:
            raise TuningError(f"A hyperparameter is no number: {error}.") from None
        tuned = tuning.tune(
            self._azure,
            wanted,
            canceled=self._record.canceled,
            log=self._log.write,
            step=lambda told: self._measure(measured(told), told.step),
        )
        self._measure(summed_up(tuned), tuned.losses[-1].step)
        return tuned

    def _measure(self, values: Mapping[str, float], number: int) -> None:
        note_metrics(self._azure, self._record.job_id, values, number)

    def _register(self, tuned: tuning.Tuned) -> None:
        """Keep the model in storage, and as a model of the workspace."""
        base, folder = str(self._details["model"]["uri"]), self._folder / "mlflow"
        mlflow_model.write(tuned.folder, folder, task=self._task[1], base=base)
        tuning.forget(self._azure, self._record.name)
        for spec in self._properties["outputs"].values():
            if not spec.get("assetName"):
                continue
            parents.upload(self._azure, folder, str(spec["uri"]))
            model = mlflow_model.register(
                self._azure,
                str(spec["assetName"]),
                uri=str(spec["uri"]),
                job=self._record.name,
                base=base,
            )
            self._log.line(f"model: {model}")

"""The guides to Azure's catalog, walked by the azure-ai-ml that is installed where this runs.

    python tests/emulator/seed_flows.py FOLDER PREFIX        writes FOLDER/facts.json

As sdk_session.py, it is run with the variables of a rehearsal (test_seed_flows.py), once per SDK
version, imports nothing of ours, and reports flow by flow what it got; the test judges. Its flows:
a registry's model and component; the pipeline that fine-tunes a chat model; the fine-tuning job.
"""

import ast
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import requests
from azure.ai.ml import Input, MLClient
from azure.ai.ml._version import VERSION
from azure.ai.ml.dsl import pipeline
from azure.ai.ml.entities import AmlCompute, Data, Model
from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job
from azure.identity import EnvironmentCredential

CHAT_MODEL, TEXT_MODEL = "Phi-3-mini-4k-instruct", "mistralai-Mistral-7B-v01"
COMPONENT = "chat_completion_pipeline"
SIZE = "Standard_NC48ads_A100_v4"
ENDED = {"Completed", "Failed", "Canceled"}
SECONDS = 300


def text(status: Any) -> str:
    """1.34 has strings where 1.35 has an enumeration."""
    return str(getattr(status, "value", status))


class Flows:
    """The flows, in their order."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.credential = EnvironmentCredential()
        quiet = {"enable_telemetry": False, "show_progress": False}
        self.ml = MLClient(
            self.credential,
            os.environ["AZURE_SUBSCRIPTION_ID"],
            os.environ["AZURE_RESOURCE_GROUP"],
            os.environ["AZURE_WORKSPACE"],
            **quiet,
        )
        self.registry = MLClient(self.credential, registry_name="azureml", **quiet)
        for name, row in {
            "chat": {"messages": [{"role": "user", "content": "1"}, {"role": "assistant"}]},
            "text": {"text": "Summarize.", "ground_truth": "Done."},
        }.items():
            for split in ("train", "validation"):
                lines = f"{json.dumps(row)}\n" * 3
                (folder / f"{name}-{split}.jsonl").write_text(lines)

    def catalog(self) -> Any:
        """h: model and component by label and by version."""
        model = self.registry.models.get(CHAT_MODEL, label="latest")
        component = self.registry.components.get(COMPONENT, label="latest")
        same = self.registry.components.get(COMPONENT, version=component.version)
        try:
            component(**ast.literal_eval(model.tags["model_specific_defaults"]))
            refused = ""
        except Exception as error:
            refused = f"{type(error).__name__}: {error}"
        return {
            "model": [model.id, model.type],
            "component": component.id,
            "same": list(component.inputs) == list(same.inputs),
            "listed": sorted(found.name for found in self.registry.models.list()),
            "allowed": SIZE in ast.literal_eval(model.tags["finetune_compute_allow_list"]),
            "refused": refused,
        }

    def pipeline(self) -> Any:
        """i: the component around our rows, on a cluster of ours; its model registered."""
        cluster = self._cluster()
        (gpus,) = [size.gpus for size in self.ml.compute.list_sizes() if size.name == cluster.size]
        model = self.registry.models.get(CHAT_MODEL, label="latest")
        component = self.registry.components.get(COMPONENT, label="latest")
        given = ast.literal_eval(model.tags["model_specific_defaults"])
        taken = {name: value for name, value in given.items() if name in component.inputs}
        places = ("model_import", "preprocess", "finetune", "model_evaluation")

        def rows(split: str) -> Any:
            return Input(type="uri_file", path=str(self.folder / f"chat-{split}.jsonl"))

        @pipeline(name=f"{self.prefix}-display")  # type: ignore[untyped-decorator]
        def create() -> Any:
            tuned = component(
                mlflow_model_path=Input(type="mlflow_model", path=model.id),
                train_file_path=rows("train"),
                validation_file_path=rows("validation"),
                number_of_gpu_to_use_finetuning=gpus,
                **{f"compute_{place}": cluster.name for place in places},
                **taken,
            )
            return {"trained_model": tuned.outputs.mlflow_model_folder}

        job = create()
        job.name = f"{self.prefix}-pipeline"
        job.settings.force_rerun = True
        job.settings.continue_on_step_failure = False
        made = self.ml.jobs.create_or_update(job, experiment_name="seed-flows")
        status = self._end(made.name)
        children = [child.name for child in self.ml.jobs.list(parent_job_name=made.name)]
        registered = self.ml.models.create_or_update(
            Model(
                name=f"{self.prefix}-chat",
                version="20261122030000",
                type="mlflow_model",
                path=f"azureml://jobs/{made.name}/outputs/trained_model",
            )
        )
        self.ml.models.download(
            registered.name, registered.version, download_path=str(self.folder / "got-chat")
        )
        return {
            "gpus": gpus,
            "begun": text(made.status),
            "status": status,
            "children": len(children),
            "outputs": sorted(self.ml.jobs.get(made.name).outputs),
            "model": [registered.type, registered.job_name],
            "files": self._files("got-chat"),
        }

    def _cluster(self) -> Any:
        name = f"{self.prefix}-gpus"
        self.ml.compute.begin_create_or_update(
            AmlCompute(name=name, size=SIZE, min_instances=0, max_instances=1)
        ).result()
        return self.ml.compute.get(name)

    def finetuning(self) -> Any:
        """j: on machines that the catalog recommends; its model is registered by the service."""
        model = self.registry.models.get(TEXT_MODEL, label="latest")
        size = model.properties["finetune-recommended-sku"].split(", ")[-1]
        train, validation = (self._asset(split) for split in ("train", "validation"))
        wanted: dict[str, Any] = {
            "task": FineTuningTaskType.TEXT_COMPLETION,
            "training_data": train,
            "model": model.id,
            "output_model_name_prefix": f"{self.prefix}-text",
            "hyperparameters": {"num_train_epochs": "1", "learning_rate": "0.00002"},
            "instance_types": [size],
            "name": f"{self.prefix}-finetuning",
            "experiment_name": "seed-flows",
        }
        try:
            create_finetuning_job(**wanted)
            alone = ""
        except Exception as error:
            alone = type(error).__name__
        job = create_finetuning_job(**wanted, validation_data=validation)
        try:
            self.ml.jobs.create_or_update(job)
            sent = ""
        except TypeError as error:  # a version that cannot write its own request
            sent = str(error)
            self._put(job, train, validation, model.id, size)
        status = self._end(job.name)
        found = self.ml.jobs.get(job.name)
        name = found.outputs["registered_model"].name
        registered = self.ml.models.get(name, label="latest")
        self.ml.models.download(
            name, registered.version, download_path=str(self.folder / "got-text")
        )
        return {
            "without validation": alone,
            "sent": sent,
            "status": status,
            "kind": type(found).__name__,
            "model": [registered.type, registered.name],
            "files": self._files("got-text"),
        }

    def _asset(self, split: str) -> str:
        name, path = f"{self.prefix}-{split}", str(self.folder / f"text-{split}.jsonl")
        asset = Data(name=name, version="1", type="uri_file", path=path)
        return str(self.ml.data.create_or_update(asset).id)

    def _put(self, job: Any, train: str, validation: str, model: str, size: str) -> None:
        workspace = self.ml.workspaces.get(os.environ["AZURE_WORKSPACE"]).id
        details = {
            "taskType": "TextCompletion",
            "modelProvider": "Custom",
            "model": {"uri": model, "jobInputType": "mlflow_model"},
            "trainingData": {"uri": train, "jobInputType": "uri_file"},
            "validationData": {"uri": validation, "jobInputType": "uri_file"},
            "hyperParameters": {"num_train_epochs": "1", "learning_rate": "0.00002"},
        }
        name = f"{self.prefix}-text"
        properties = {
            "jobType": "FineTuning",
            "experimentName": "seed-flows",
            "fineTuningDetails": details,
            "resources": {"instanceTypes": [size]},
            "outputs": {"registered_model": {"assetName": name, "jobOutputType": "mlflow_model"}},
        }
        token = self.credential.get_token("https://management.azure.com/.default").token
        answer = requests.put(
            f"https://management.azure.com{workspace}/jobs/{job.name}",
            params={"api-version": "2024-10-01-preview"},
            headers={"Authorization": f"Bearer {token}"},
            json={"properties": properties},
            timeout=60,
        )
        answer.raise_for_status()

    def _end(self, name: str) -> str:
        end = time.monotonic() + SECONDS
        while (status := text(self.ml.jobs.get(name).status)) not in ENDED:
            if time.monotonic() > end:
                raise TimeoutError(f"{name} is {status}")
            time.sleep(0.5)
        return status

    def _files(self, folder: str) -> list[str]:
        return sorted({path.name for path in (self.folder / folder).rglob("*") if path.is_file()})


def main() -> None:
    flows = Flows(Path(sys.argv[1]), sys.argv[2])
    facts: dict[str, Any] = {"version": VERSION, "prefix": sys.argv[2], "seconds": {}}
    for flow in (flows.catalog, flows.pipeline, flows.finetuning):
        begun = time.monotonic()
        try:
            facts[flow.__name__] = flow()
        except Exception:
            facts[flow.__name__] = {"raised": traceback.format_exc()}
        facts["seconds"][flow.__name__] = round(time.monotonic() - begun, 1)
    (flows.folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()

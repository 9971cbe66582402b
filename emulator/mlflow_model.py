"""Writes a model as the catalog's training does: an MLflow folder of the transformers flavor.

    write(tuned.folder, to, task="chat-completion", base="azureml://registries/…")
    register(azure, "phi-3", uri="azureml://datastores/…", job="job-1", base="azureml://…")

MLmodel names what lies beside it: `model/` with the weights, `components/tokenizer/`, and files
that say what a Python needs to load it. The server finds `model/` by its config.json.
"""

import datetime
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from emulator.azure import Azure

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "chat_template.jinja", "added_tokens.json")
REQUIREMENTS = ("mlflow", "torch", "transformers", "accelerate")


def write(model: Path, to: Path, *, task: str, base: str) -> None:
    """Make the folder `to` of a whole model's folder; `task` and `base` as Azure names them."""
    to.mkdir(parents=True)
    shutil.copytree(model, to / "model")
    tokenizer = to / "components" / "tokenizer"
    tokenizer.mkdir(parents=True)
    for pattern in TOKENIZER:
        for file in model.glob(pattern):
            shutil.copyfile(file, tokenizer / file.name)
    architecture = json.loads((model / "config.json").read_text(encoding="utf-8"))
    kind = (architecture.get("architectures") or [architecture.get("model_type", "")])[0]
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    (to / "requirements.txt").write_text("\n".join(REQUIREMENTS) + "\n", encoding="utf-8")
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": ["python=3.11", "pip", {"pip": list(REQUIREMENTS)}],
    }
    (to / "conda.yaml").write_text(_yaml(conda), encoding="utf-8")
    (to / "python_env.yaml").write_text(
        _yaml({"python": "3.11", "dependencies": ["-r requirements.txt"]}), encoding="utf-8"
    )
    flavors: dict[str, Any] = {
        "python_function": {
            "loader_module": "mlflow.transformers",
            "model_binary": "model",
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "python_version": "3.11",
        },
        "transformers": {
            "code": None,
            "components": ["tokenizer"],
            "framework": "pt",
            "instance_type": "TextGenerationPipeline",
            "model_binary": "model",
            "pipeline_model_type": kind,
            "source_model_name": base,
            "task": task,
            "tokenizer_name": "",
            "tokenizer_type": "PreTrainedTokenizerFast",
        },
    }
    said = {
        "artifact_path": "mlflow_model_folder",
        "flavors": flavors,
        "metadata": {"base_model_name": base, "base_model_task": task, "is_finetuned_model": True},
        "model_size_bytes": size,
        "model_uuid": uuid.uuid4().hex,
        "utc_time_created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    (to / "MLmodel").write_text(_yaml(said), encoding="utf-8")
    for file in to.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


def register(azure: Azure, name: str, *, uri: str, job: str, base: str) -> str:
    """Make what lies at `uri` the next version of a model of the workspace; the version's id."""
    container = f"{azure.settings.workspace_id}/models/{name}"
    known = azure.store.get(container)
    version = str(known["properties"]["nextVersion"]) if known else "1"
    settings = azure.settings
    place = uri.removeprefix("azureml://")
    properties: dict[str, Any] = {
        "isAnonymous": False,
        "isArchived": False,
        "description": None,
        "flavors": {"python_function": {"data": {}}},
        "modelType": "mlflow_model",
        "modelUri": (
            f"azureml://subscriptions/{settings.subscription}/resourcegroups/"
            f"{settings.resource_group}/workspaces/{settings.workspace}/{place.rstrip('/')}/"
        ),
        "jobName": job,
        "tags": {},
        "properties": {"baseModelId": base},
        "provisioningState": "Succeeded",
    }
    made = azure.store.put(f"{container}/versions/{version}", {"properties": properties})
    counted: dict[str, Any] = {"isArchived": False, "tags": {}, "properties": {}}
    counted |= {"latestVersion": version, "nextVersion": str(int(version) + 1)}
    azure.store.put(container, {"properties": counted})
    return str(made["id"])


def _yaml(value: Any) -> str:
    """YAML that is JSON too: the emulator's image has no YAML library, and needs none for this."""
    return json.dumps(value, indent=2) + "\n"

"""Bodies of pipeline and fine-tuning jobs, as the SDK and REST clients send them."""

from typing import Any

from tests.emulator.asking import Client

PIPELINE, FINETUNING = "2024-01-01-preview", "2024-10-01-preview"
COMPONENT = "azureml://registries/azureml/components/chat_completion_pipeline/labels/latest"
PHI = "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/labels/latest"
MISTRAL = "azureml://registries/azureml/models/mistralai-Mistral-7B-v01/labels/latest"
ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


def rows(azure: Client, name: str, count: int = 12, row: bytes = ROW) -> str:
    """The place of a file of rows."""
    azure.write(f"LocalUpload/{name}/{name}.jsonl", row * count)
    return f"azureml://datastores/workspaceblobstore/paths/LocalUpload/{name}/{name}.jsonl"


def file_input(uri: str) -> dict[str, str]:
    return {"uri": uri, "job_input_type": "uri_file"}


def pipeline(azure: Client, name: str = "pipe", *, expect: int = 201, **inputs: Any) -> Any:
    """Submit a pipeline job; `inputs` go over the usual ones, and None takes one away."""
    given: dict[str, Any] = {
        "mlflow_model_path": {"uri": PHI, "job_input_type": "mlflow_model"},
        "train_file_path": file_input(rows(azure, "train")),
        "num_train_epochs": {"value": "1", "job_input_type": "literal"},
        **inputs,
    }
    node = {
        "name": "chat_completion_pipeline",
        "type": "pipeline",
        "inputs": {key: value for key, value in given.items() if value is not None},
        "outputs": {
            "mlflow_model_folder": {"value": "${{parent.outputs.trained_model}}", "type": "literal"}
        },
        "_source": "REMOTE.REGISTRY",
        "componentId": COMPONENT,
    }
    properties = {
        "jobType": "Pipeline",
        "displayName": "chat",
        "experimentName": "chat",
        "tags": {},
        "properties": {},
        "isArchived": False,
        "jobs": {"chat_completion_pipeline": node},
        "inputs": {},
        "outputs": {"trained_model": {"jobOutputType": "mlflow_model"}},
        "settings": {
            "default_compute": f"{azure.workspace}/computes/serverless",
            "force_rerun": True,
            "_source": "DSL",
        },
    }
    body = {"properties": properties}
    return azure.ask("PUT", f"jobs/{name}", body, api=PIPELINE, expect=expect)


def finetuning(azure: Client, name: str = "tune", *, expect: int = 201, **details: Any) -> Any:
    """Submit a fine-tuning job; `details` go over the usual ones, and None takes one away."""
    given: dict[str, Any] = {
        "taskType": "TextCompletion",
        "modelProvider": "Custom",
        "model": {"uri": MISTRAL, "jobInputType": "mlflow_model"},
        "trainingData": {"uri": rows(azure, "train"), "jobInputType": "uri_file"},
        "validationData": {"uri": rows(azure, "held", 2), "jobInputType": "uri_file"},
        "hyperParameters": {"num_train_epochs": "1", "learning_rate": "0.00002"},
        **details,
    }
    properties = {
        "jobType": "FineTuning",
        "displayName": "tune",
        "experimentName": "tune",
        "tags": {"a": "b"},
        "properties": {},
        "fineTuningDetails": {key: value for key, value in given.items() if value is not None},
        "outputs": {"registered_model": {"assetName": "ours", "jobOutputType": "mlflow_model"}},
        "resources": {"instanceTypes": ["Standard_NC48ads_A100_v4"]},
        "queueSettings": {"jobTier": "Standard"},
    }
    body = {"properties": properties}
    return azure.ask("PUT", f"jobs/{name}", body, api=FINETUNING, expect=expect)

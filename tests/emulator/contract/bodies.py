"""Bodies as the real service is known to take and give them, cut to what each of them shows.

They are written here after what recordings of the service showed (azure-ai-ml's own end-to-end
recordings, March 2026 and before): our words, their members.
"""

from typing import Any

WORKSPACE = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rehearsal"
    "/providers/Microsoft.MachineLearningServices/workspaces/homeport"
)
HISTORY = f"/history/v1.0{WORKSPACE}"

Body = dict[str, Any]


def job(**properties: Any) -> Body:
    """A command job as the SDK sends it."""
    return {
        "properties": {
            "jobType": "Command",
            "command": "python train.py ${{inputs.train}} ${{outputs.model}}",
            "environmentId": f"{WORKSPACE}/environments/train/versions/1",
            "environmentVariables": {"HF_HUB_OFFLINE": "1"},
            "inputs": {
                "train": {
                    "jobInputType": "uri_file",
                    "uri": f"{WORKSPACE}/data/train/versions/1",
                    "mode": "Download",
                },
                "rate": {"jobInputType": "literal", "value": "0.0001"},
            },
            "outputs": {"model": {"jobOutputType": "uri_folder", "mode": "Upload"}},
            "distribution": {"distributionType": "PyTorch", "processCountPerInstance": 1},
            "limits": {"jobLimitsType": "Command", "timeout": "PT1H"},
            "resources": {"instanceCount": 1, "instanceType": "Standard_DS3_v2", "shmSize": "2g"},
            "tags": {"homeport": "1"},
            **properties,
        }
    }


ROWS = "azureml://datastores/workspaceblobstore/paths/LocalUpload/0/train.jsonl"
CATALOG = "azureml://registries/azureml"


def pipeline(**properties: Any) -> Body:
    """A pipeline job around a registry's component, as the SDK sends it."""
    step = {
        "name": "chat",
        "type": "pipeline",
        "inputs": {
            "mlflow_model_path": {
                "uri": f"{CATALOG}/models/Phi-4/versions/8",
                "job_input_type": "mlflow_model",
            },
            "train_file_path": {"uri": ROWS, "job_input_type": "uri_file"},
            "num_train_epochs": {"value": "1", "job_input_type": "literal"},
        },
        "outputs": {
            "mlflow_model_folder": {"value": "${{parent.outputs.trained_model}}", "type": "literal"}
        },
        "_source": "REMOTE.REGISTRY",
        "componentId": f"{CATALOG}/components/chat_completion_pipeline/versions/0.0.82",
    }
    return {
        "properties": {
            "jobType": "Pipeline",
            "displayName": "chat",
            "experimentName": "chat",
            "jobs": {"chat": step},
            "inputs": {},
            "outputs": {"trained_model": {"jobOutputType": "mlflow_model"}},
            "settings": {
                "default_compute": f"{WORKSPACE}/computes/serverless",
                "force_rerun": True,
                "_source": "DSL",
            },
            "tags": {"homeport": "1"},
            **properties,
        }
    }


def finetuning(**properties: Any) -> Body:
    """A fine-tuning job on machines of the catalog's choice, as the SDK sends it."""
    rows = {"uri": ROWS, "jobInputType": "uri_file"}
    return {
        "properties": {
            "jobType": "FineTuning",
            "fineTuningDetails": {
                "taskType": "TextCompletion",
                "modelProvider": "Custom",
                "model": {
                    "uri": f"{CATALOG}/models/mistralai-Mistral-7B-v01/versions/20",
                    "jobInputType": "mlflow_model",
                },
                "trainingData": rows,
                "validationData": rows,
                "hyperParameters": {"num_train_epochs": "1", "learning_rate": "0.00002"},
            },
            "outputs": {"registered_model": {"assetName": "mine", "jobOutputType": "mlflow_model"}},
            "resources": {"instanceTypes": ["Standard_NC96ads_A100_v4"]},
            "queueSettings": {"jobTier": "Standard"},
            **properties,
        }
    }


def job_answer(name: str = "job1") -> Body:
    """The job as the service answers it: Starting, with its services and its own output."""
    made = job(
        status="Starting",
        services={
            "Tracking": {"jobServiceType": "Tracking", "endpoint": "azureml://eastus…"},
            "Studio": {"jobServiceType": "Studio", "endpoint": "https://ml.azure.com/runs/job1"},
        },
        parentJobName=None,
        isArchived=False,
    )
    made["properties"]["outputs"]["default"] = {
        "jobOutputType": "uri_folder",
        "mode": "ReadWriteMount",
        "uri": f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{name}",
    }
    return resource(f"{WORKSPACE}/jobs/{name}", made)


def resource(arm_id: str, body: Body) -> Body:
    """The envelope that the service puts around every resource."""
    return {
        "id": arm_id,
        "name": arm_id.rpartition("/")[2],
        "type": "Microsoft.MachineLearningServices/workspaces/jobs",
        "systemData": {
            "createdAt": "2026-03-27T01:05:42.6923401+00:00",
            "createdBy": "someone",
            "createdByType": "User",
        },
        **body,
    }


def endpoint(**properties: Any) -> Body:
    """An online endpoint as the SDK sends it."""
    return {
        "location": "eastus",
        "tags": {"homeport": "1"},
        "identity": {"type": "SystemAssigned"},
        "properties": {"authMode": "Key", "properties": {}, **properties},
    }


def deployment(**properties: Any) -> Body:
    """A managed online deployment as the SDK sends it."""
    probe = {
        "initialDelay": "PT10S",
        "period": "PT10S",
        "timeout": "PT2S",
        "failureThreshold": 30,
        "successThreshold": 1,
    }
    return {
        "location": "eastus",
        "sku": {"name": "Default", "capacity": 1},
        "properties": {
            "endpointComputeType": "Managed",
            "model": f"{WORKSPACE}/models/model/versions/1",
            "environmentId": f"{WORKSPACE}/environments/serve/versions/1",
            "instanceType": "Standard_DS3_v2",
            "scaleSettings": {"scaleType": "Default"},
            "requestSettings": {"requestTimeout": "PT1M30S", "maxConcurrentRequestsPerInstance": 4},
            "livenessProbe": probe,
            "readinessProbe": probe,
            **properties,
        },
    }


def environment(**properties: Any) -> Body:
    """An environment of an image that brings its own server."""
    route = {"path": "/", "port": 5001}
    return {
        "properties": {
            "image": "homeportrehearsal.azurecr.io/homeport/serve@sha256:0",
            "inferenceConfig": {
                "livenessRoute": route,
                "readinessRoute": route,
                "scoringRoute": {"path": "/score", "port": 5001},
            },
            **properties,
        }
    }


def data(**properties: Any) -> Body:
    """A data version of one file."""
    uri = "azureml://datastores/workspaceblobstore/paths/LocalUpload/0/train.jsonl"
    return {"properties": {"dataType": "uri_file", "dataUri": uri, "tags": {}, **properties}}


def code(**properties: Any) -> Body:
    """A code version, at the address that the service had handed out for its upload."""
    uri = "https://account.blob.core.windows.net:443/11111111-2222-3333-4444-26characters/source"
    known = {"hash_sha256": "0" * 64, "hash_version": "202208"}
    return {"properties": {"codeUri": uri, "properties": known, "isAnonymous": True, **properties}}


def model(**properties: Any) -> Body:
    """A model of a job's output; its flavors carry more than strings."""
    flavors = {"python_function": {"data": {"env": {"conda": "conda.yaml"}, "layers": [1, 2]}}}
    known = {"modelUri": "azureml://jobs/job1/outputs/model", "modelType": "custom_model"}
    return {"properties": {**known, "flavors": flavors, **properties}}


def compute(**properties: Any) -> Body:
    """A cluster that goes down to nothing."""
    return {
        "location": "eastus",
        "properties": {
            "computeType": "AmlCompute",
            "properties": {
                "vmSize": "Standard_DS3_v2",
                "vmPriority": "LowPriority",
                "scaleSettings": {
                    "maxNodeCount": 1,
                    "minNodeCount": 0,
                    "nodeIdleTimeBeforeScaleDown": "PT2M",
                },
                **properties,
            },
        },
    }


def envelope(message: str, inner: str = "") -> Body:
    """A refusal as Azure ML's front end words it."""
    info: list[Body] = [{"type": "ComponentName", "info": {"value": "managementfrontend"}}]
    if inner:
        chain = {"code": "UserError", "innerError": {"code": inner}}
        info.append({"type": "InnerError", "info": {"value": chain}})
    return {
        "error": {"code": "UserError", "message": message, "details": [], "additionalInfo": info}
    }

"""From rows to an answer: a fine-tuning job's model, deployed without an environment, is asked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bases import made_base
from tests.emulator.asking import Client, client
from tests.emulator.foundation_jobs import finetuning
from tests.emulator.test_tuning import ROWS
from tests.local_azure import session
from tests.waiting import until

pytestmark = pytest.mark.slow  # it trains and serves

ENDPOINTS, DEPLOYMENTS = "2022-02-01-preview", "2023-04-01-preview"
PROBE = {"initialDelay": "PT600S", "period": "PT1S", "timeout": "PT2S", "failureThreshold": 300}
LONG = 600.0


def put(azure: Client, path: str, properties: dict[str, Any], api: str) -> None:
    """Make it and wait until it is there."""
    body = {"location": "eastus", "tags": {}, "properties": properties}
    if "deployments" in path:
        body |= {"sku": {"name": "Default", "capacity": 1}}
    else:
        body |= {"identity": {"type": "SystemAssigned"}}
    azure.ask("PUT", path, body, api=api, expect=200 if "traffic" in properties else 201)

    def done() -> bool:
        state = azure.ask("GET", path, api=api)["properties"]["provisioningState"]
        assert state != "Failed"
        return bool(state == "Succeeded")

    until(done, LONG)


def test_a_text_model_is_trained_registered_deployed_and_answers(tmp_path: Path) -> None:
    with client(tmp_path) as azure:
        cache = made_base().parent
        azure.azure.settings = replace(azure.azure.settings, cache_folder=cache, hurry=0.0)
        rows = [{"text": question, "ground_truth": answer} for question, answer in ROWS]
        azure.write("rows/r.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        data = {
            "uri": "azureml://datastores/workspaceblobstore/paths/rows/r.jsonl",
            "jobInputType": "uri_file",
        }
        finetuning(
            azure,
            trainingData=data,
            validationData=data,
            hyperParameters={"num_train_epochs": "12", "learning_rate": "0.00002"},
        )
        ended = azure.until("tune", "Completed", "Failed", seconds=LONG)
        assert ended["status"] == "Completed", ended["error"]

        model = f"{azure.workspace}/models/ours/versions/1"
        put(azure, "onlineEndpoints/ours", {"authMode": "Key", "properties": {}}, ENDPOINTS)
        deployment = {
            "endpointComputeType": "Managed",
            "model": model,
            "instanceType": "Standard_NC24ads_A100_v4",
            "requestSettings": {"requestTimeout": "PT90S"},
            "livenessProbe": PROBE,
            "readinessProbe": PROBE,
        }
        put(azure, "onlineEndpoints/ours/deployments/blue", deployment, DEPLOYMENTS)
        key = azure.ask("POST", "onlineEndpoints/ours/listKeys", api=ENDPOINTS)["primaryKey"]
        host = "https://ours.eastus.inference.ml.azure.com"
        asking = session(azure.server, "")
        asking.headers["Authorization"] = f"Bearer {key}"
        asking.headers["azureml-model-deployment"] = "blue"

        body = {"prompt": ROWS[1][0], "max_tokens": 20, "temperature": 0}
        reply = asking.post(f"{host}/completions", json=body, timeout=90)
        assert reply.json()["choices"][0]["text"].strip() == ROWS[1][1], reply.text

        parameters = {"max_new_tokens": 20, "do_sample": False}
        given = {"input_data": {"input_string": [ROWS[0][0]], "parameters": parameters}}
        reply = asking.post(f"{host}/score", json=given, timeout=90)
        assert reply.json()["output"][0].strip() == ROWS[0][1], reply.text

"""Fine-tuning jobs of the catalog: refused, carried out, and their model registered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.asking import LATER, MODELS, Client, client
from tests.emulator.foundation_jobs import FINETUNING, MISTRAL, finetuning
from tests.emulator.quick_nodes import QuickNodes
from tests.waiting import until


@pytest.fixture
def nodes() -> QuickNodes:
    return QuickNodes()


@pytest.fixture
def azure(tmp_path: Path, nodes: QuickNodes) -> Iterator[Client]:
    with client(tmp_path, nodes) as asking:
        yield asking


def test_it_registers_the_model_that_the_job_names(azure: Client, nodes: QuickNodes) -> None:
    finetuning(azure)

    assert azure.ended("tune")["status"] == "Completed"
    listed = azure.ask("GET", "models/ours/versions", api=MODELS)["value"]
    assert [model["name"] for model in listed] == ["1"]
    properties = listed[0]["properties"]
    assert (properties["modelType"], properties["jobName"]) == ("mlflow_model", "tune")
    assert properties["modelUri"].endswith("/paths/azureml/tune/registered_model/")
    assert "azureml/tune/registered_model/MLmodel" in azure.blobs("azureml/tune/")
    assert "--form text --epochs 1 --seed 42 --learning-rate 0.002" in str(nodes.started[0].command)
    log = azure.log("tune")
    assert "trainingData: 12 rows" in log
    assert "step 3/3" in log

    finetuning(azure, "again")
    azure.ended("again")
    assert azure.ask("GET", "models/ours", api=MODELS)["properties"]["latestVersion"] == "2"


def test_its_metrics_are_its_runs(azure: Client) -> None:
    finetuning(azure)
    azure.ended("tune")

    path = f"/mlflow/v2.0{azure.workspace}/api/2.0/mlflow/runs/get?run_id=tune"
    metrics = azure.ask("GET", path, api="v1.0")["run"]["data"]["metrics"]
    found = {row["key"]: (row["value"], row["step"]) for row in metrics}
    assert found["eval_loss"] == (2.0, 3)
    assert found["train_loss"] == (2.0, 3)


def test_an_older_api_version_knows_no_resources_of_it(azure: Client) -> None:
    made = finetuning(azure)
    assert made["properties"]["resources"] == {"instanceTypes": ["Standard_NC48ads_A100_v4"]}

    for job in (
        azure.ask("GET", "jobs/tune", api=LATER),
        azure.ask("GET", "jobs", api=LATER)["value"][0],
    ):
        assert not {"resources", "queueSettings"} & job["properties"].keys()
    assert azure.ask("GET", "jobs/tune", api=FINETUNING)["properties"]["queueSettings"]
    azure.ended("tune")


@pytest.mark.parametrize(
    ("details", "sentence"),
    [
        ({"validationData": None}, "The validation data is required"),
        ({"taskType": "ChatCompletion"}, "does not support fine-tuning for the task chat-comple"),
        (
            {"model": {"uri": f"{MISTRAL}x", "jobInputType": "mlflow_model"}},
            "model: ",
        ),
    ],
)
def test_what_the_service_does_not_train_is_refused(
    azure: Client, details: dict[str, Any], sentence: str
) -> None:
    assert sentence in finetuning(azure, expect=400, **details)["error"]["message"]


def test_rows_that_cannot_be_learnt_fail_the_job(azure: Client, nodes: QuickNodes) -> None:
    nodes.fails = "error: line 3 of train.jsonl is not JSON."
    finetuning(azure)

    details = azure.ended("tune")
    assert details["status"] == "Failed"
    message = details["error"]["error"]["message"]
    assert message == "Fine-tuning failed: line 3 of train.jsonl is not JSON."


def test_cancelling_ends_it(azure: Client, nodes: QuickNodes) -> None:
    nodes.hold.set()
    finetuning(azure)
    until(lambda: bool(nodes.started))

    azure.ask("POST", "jobs/tune/cancel", api=FINETUNING, expect=202)

    assert azure.ended("tune")["status"] == "Canceled"
    azure.ask("GET", "models/ours/versions", api=MODELS, expect=404)

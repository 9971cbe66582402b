"""Pipeline jobs of the registry's fine-tuning component: their steps, outputs and refusals."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.pipelines import split
from tests.emulator.asking import MODELS, Client, client
from tests.emulator.foundation_jobs import FINETUNING, file_input, pipeline, rows
from tests.emulator.quick_nodes import QuickNodes
from tests.waiting import until

STEPS = [
    "ft_nlp_common_validation",
    "chat_completion_model_import",
    "chat_completion_datapreprocess",
    "chat_completion_finetune",
    "ft_nlp_model_converter",
]


@pytest.fixture
def nodes() -> QuickNodes:
    return QuickNodes()


@pytest.fixture
def azure(tmp_path: Path, nodes: QuickNodes) -> Iterator[Client]:
    with client(tmp_path, nodes) as asking:
        yield asking


def children(azure: Client, name: str) -> list[Any]:
    path = f"/history/v1.0{azure.workspace}/runs/{name}/children"
    found = azure.ask("GET", path, api="v1.0")["value"]
    assert isinstance(found, list)
    return found


def literal(value: str) -> dict[str, str]:
    return {"value": value, "job_input_type": "literal"}


def test_its_steps_are_runs_below_the_components_run(azure: Client) -> None:
    pipeline(azure)

    assert azure.ended("pipe")["status"] == "Completed"
    (node,) = children(azure, "pipe")
    assert (node["displayName"], node["runType"]) == (
        "chat_completion_pipeline",
        "azureml.PipelineRun",
    )
    steps = children(azure, node["runId"])
    assert [step["displayName"] for step in steps] == STEPS
    assert {step["status"] for step in steps} == {"Completed"}
    assert {step["rootRunId"] for step in steps} == {"pipe"}
    assert {step["parentRunId"] for step in steps} == {node["runId"]}
    assert "step 3/3" in azure.log(steps[3]["runId"])
    assert "Completed step chat_completion_finetune" in azure.log(
        "pipe", "logs/azureml/executionlogs.txt"
    )


def test_only_the_pipeline_is_listed_but_a_step_is_a_job_too(azure: Client) -> None:
    pipeline(azure)
    azure.ended("pipe")

    listed = azure.ask("GET", "jobs")["value"]
    assert [job["name"] for job in listed] == ["pipe"]
    (node,) = children(azure, "pipe")
    step = azure.ask("GET", f"jobs/{children(azure, node['runId'])[3]['runId']}")
    assert step["properties"]["resources"] == {"instanceType": "Standard_nc24rs_v3"}
    assert step["properties"]["componentId"].endswith("/chat_completion_finetune/versions/0.0.81")


def test_the_metrics_of_its_steps_are_found_by_the_root(azure: Client) -> None:
    pipeline(azure)
    azure.ended("pipe")

    base = f"/mlflow/v2.0{azure.workspace}/api/2.0/mlflow"
    found = azure.ask("GET", f"{base}/experiments/get-by-name?experiment_name=chat", api="v1.0")
    asked = {
        "experiment_ids": [found["experiment"]["experiment_id"]],
        "filter": "tags.mlflow.rootRunId='pipe'",
    }
    runs = azure.ask("POST", f"{base}/runs/search", asked, api="v1.0")["runs"]
    assert len(runs) == 7  # the pipeline, its component, and five steps
    (training,) = [run for run in runs if run["data"]["metrics"]]
    metrics = {row["key"]: row["value"] for row in training["data"]["metrics"]}
    assert metrics == {
        "loss": 1.5,
        "learning_rate": 1e-3,
        "epoch": 1.0,
        "eval_loss": 2.0,
        "train_loss": 2.0,
    }


def test_its_model_is_an_mlflow_folder_that_can_be_registered(azure: Client) -> None:
    pipeline(azure)
    azure.ended("pipe")

    assert azure.blobs("azureml/pipe/trained_model/") == [
        f"azureml/pipe/trained_model/{name}"
        for name in (
            "MLmodel",
            "components/tokenizer/tokenizer.json",
            "components/tokenizer/tokenizer_config.json",
            "conda.yaml",
            "model/config.json",
            "model/model.safetensors",
            "model/tokenizer.json",
            "model/tokenizer_config.json",
            "python_env.yaml",
            "requirements.txt",
        )
    ]
    said = json.loads(azure.read("azureml/pipe/trained_model/MLmodel"))
    assert said["flavors"]["transformers"]["task"] == "chat-completion"
    body = {
        "properties": {
            "modelType": "mlflow_model",
            "modelUri": "azureml://jobs/pipe/outputs/trained_model",
        }
    }
    made = azure.ask("PUT", "models/phi/versions/1", body, api=MODELS, expect=201)
    assert made["properties"]["jobName"] == "pipe"


def test_rows_to_validate_on_are_split_off_where_none_are_given(
    azure: Client, nodes: QuickNodes
) -> None:
    pipeline(azure)
    azure.ended("pipe")
    assert "--validation" in str(nodes.started[0].command)

    pipeline(azure, "other", validation_file_path=file_input(rows(azure, "held", 3)))
    azure.ended("other")
    (node,) = children(azure, "other")
    log = azure.log(children(azure, node["runId"])[2]["runId"])
    assert log == "train: 12 rows\nvalidation: 3 rows\n"


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"learning_rate_min": literal("1e-6")}, "has no input 'learning_rate_min'"),
        ({"apply_lora": literal("True")}, "'True' is not in the list of allowed values"),
        ({"num_train_epochs": literal("1.5")}, "'1.5' is not of type integer"),
        ({"compute_finetune": literal("no-such-cluster")}, "compute_finetune: "),
        (
            {
                "mlflow_model_path": {
                    "uri": "azureml://registries/azureml/models/None/versions/1",
                    "job_input_type": "mlflow_model",
                }
            },
            "input mlflow_model_path: ",
        ),
    ],
)
def test_what_the_component_does_not_take_is_refused(
    azure: Client, inputs: dict[str, Any], sentence: str
) -> None:
    answer = pipeline(azure, expect=400, **inputs)

    assert sentence in answer["error"]["message"]


def test_without_a_model_its_first_step_fails(azure: Client) -> None:
    pipeline(azure, mlflow_model_path=None)

    details = azure.ended("pipe")
    assert details["status"] == "Failed"
    assert "ft_nlp_common_validation failed" in details["error"]["error"]["message"]
    (node,) = children(azure, "pipe")
    assert node["status"] == "Failed"
    assert [step["status"] for step in children(azure, node["runId"])] == ["Failed"]


def test_a_training_that_fails_says_why(azure: Client, nodes: QuickNodes) -> None:
    nodes.fails = "error: a row has no messages, but text."
    pipeline(azure)

    message = azure.ended("pipe")["error"]["error"]["message"]
    assert message == "Step chat_completion_finetune failed: a row has no messages, but text."


def test_cancelling_ends_the_step_that_runs(azure: Client, nodes: QuickNodes) -> None:
    nodes.hold.set()
    pipeline(azure)
    until(lambda: bool(nodes.started))

    azure.ask("POST", "jobs/pipe/cancel", api=FINETUNING, expect=202)

    assert azure.ended("pipe")["status"] == "Canceled"
    (node,) = children(azure, "pipe")
    assert children(azure, node["runId"])[-1]["status"] == "Canceled"


def test_faults_are_a_command_jobs(azure: Client) -> None:
    azure.azure.faults.add(Fault(kind="quota"))
    refused = pipeline(azure, expect=400)
    assert "Not enough quota available for Standard_nc24rs_v3" in refused["error"]["message"]

    azure.azure.faults.add(Fault(kind="image_pull", cause="manifest unknown."))
    pipeline(azure)
    assert "manifest unknown" in azure.ended("pipe")["error"]["error"]["message"]


def test_a_tenth_of_the_rows_is_held_out_and_of_few_the_last(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for count, held in ((25, ["9", "19"]), (3, ["2"]), (1, ["0"])):
        file.write_text("".join(f"{n}\n" for n in range(count)))
        rest, out = split(file, tmp_path)
        assert out.read_text().split() == held
        assert len(rest.read_text().split()) == max(1, count - len(held))

"""Jobs that log to MLflow: the routes as a plain client asks them, and azureml-mlflow itself."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.server import Server
from emulator.tracking import experiment_id
from tests.emulator.asking import Client, client
from tests.tree import ROOT

JOB = """\
import logging
from pathlib import Path

from train import recipe as recipes
from train.tracking import opened

logging.basicConfig(level=logging.INFO, format="%(message)s")
recipe = recipes.load("{root}/recipes/tiny-ja.yaml", environ={{}})
folder = Path("run")
folder.mkdir()
report = folder / "report.html"
report.write_text("<!DOCTYPE html>")
with opened(recipe, folder, Path()) as tracker:
    tracker.client.set_tag(tracker.run_id, "from", "the job")
    for step in (10, 20):
        tracker.log({{"loss": 6.0 - step / 10}}, step)
    measured = {{"before": {{"loss": 6.7}}, "after": {{"loss": 4.1}}, "training": {{"steps": 20}}}}
    tracker.finish(measured, report)
"""
"""What the training does with its tracker, by the module that it uses."""

READER = """\
import json, os, sys
from mlflow import MlflowClient

client = MlflowClient()
run = client.get_run("tracked")
(found,) = client.search_runs([run.info.experiment_id])
losses = client.get_metric_history("tracked", "evaluation/loss")
paths = [each.path for each in client.list_artifacts("tracked")]
page = client.download_artifacts("tracked", "report.html", sys.argv[1])
print(json.dumps({
    "status": run.info.status,
    "experiment": client.get_experiment(run.info.experiment_id).name,
    "by_name": client.get_experiment_by_name("homeport").experiment_id == run.info.experiment_id,
    "unknown": client.get_experiment_by_name("nobody's"),
    "found": found.info.run_id,
    "took": run.info.end_time - run.info.start_time,
    "params": run.data.params,
    "metrics": run.data.metrics,
    "tags": run.data.tags,
    "losses": [(each.step, each.value) for each in losses],
    "paths": paths,
    "page": open(page).read(),
}))
"""
"""Somebody outside, who knows nothing but the workspace's tracking address."""


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Client]:
    """Without jobs."""
    with client(tmp_path) as asking:
        yield asking


@pytest.fixture
def azure(empty: Client) -> Client:
    """With one job, `named`, that has ended."""
    empty.job("named", "true", tags={"homeport": "1"})
    empty.ended("named")
    return empty


def mlflow(azure: Client, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
    whole = f"/mlflow/v2.0{azure.workspace}/api/2.0/mlflow/{path}"
    return azure.ask(method, whole, body, api="", expect=expect)


def run(azure: Client) -> Any:
    return mlflow(azure, "GET", "runs/get?run_id=named")["run"]


def pairs(number: int) -> list[dict[str, Any]]:
    return [{"key": f"k{i}", "value": str(i)} for i in range(number)]


@pytest.mark.slow
def test_a_job_finds_its_run_in_its_environment(azure: Client) -> None:
    azure.job("asks", "env | grep -E '^(MLFLOW|AZUREML)_'", experimentName="homeport")

    azure.ended("asks")

    found = dict(line.split("=", 1) for line in azure.log("asks").splitlines())
    number = experiment_id(azure.azure.settings, "homeport")
    host = azure.azure.settings.api.removeprefix("https://")
    assert found["MLFLOW_TRACKING_URI"] == f"azureml://{host}/mlflow/v1.0{azure.workspace}"
    assert found["MLFLOW_RUN_ID"] == found["AZUREML_RUN_ID"] == "asks"
    assert found["MLFLOW_EXPERIMENT_ID"] == found["AZUREML_EXPERIMENT_ID"] == number
    assert found["MLFLOW_EXPERIMENT_NAME"] == found["AZUREML_ARM_PROJECT_NAME"] == "homeport"
    assert found["AZUREML_SERVICE_ENDPOINT"] == azure.azure.settings.api
    token = found["AZUREML_RUN_TOKEN"]
    assert found["MLFLOW_TRACKING_TOKEN"] == token
    claims = azure.azure.tokens.check(token, "https://ml.azure.com")
    assert str(claims["exp"]) == found["AZUREML_RUN_TOKEN_EXPIRY"]


def test_single_values_are_logged_and_the_tags_are_the_jobs(azure: Client) -> None:
    given = {"run_id": "named", "key": "a"}

    mlflow(azure, "POST", "runs/log-metric", {**given, "value": 1.5, "timestamp": 9, "step": 2})
    mlflow(azure, "POST", "runs/log-metric", {**given, "value": 2.5, "timestamp": 8, "step": 1})
    mlflow(azure, "POST", "runs/log-parameter", {**given, "value": "x"})
    mlflow(azure, "POST", "runs/set-tag", {**given, "value": "y"})

    data = run(azure)["data"]
    assert data["metrics"] == [{"key": "a", "value": 1.5, "timestamp": 9, "step": 2}]
    assert data["params"] == [{"key": "a", "value": "x"}]
    assert {"key": "homeport", "value": "1"} in data["tags"]
    job = azure.ask("GET", "jobs/named", api="2025-01-01-preview")
    assert job["properties"]["tags"] == {"homeport": "1", "a": "y"}
    history = mlflow(azure, "GET", "metrics/get-history?run_id=named&metric_key=a")
    assert [row["value"] for row in history["metrics"]] == [1.5, 2.5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "word"),
    [
        ({"params": pairs(200)}, "FieldName=Parameters, Limit=200, Size=201."),
        ({"metrics": pairs(51)}, "Too many metrics for this run"),
        ({"metrics": [{"key": "k", "value": 1}] * 251}, "Value/Count, Limit=250, Size=251."),
        ({"tags": pairs(50)}, "FieldName=Tags, Limit=50, Size=51."),
        ({"tags": [{"key": "k" * 101, "value": ""}]}, "Limit=100, Size=101."),
        ({"tags": [{"key": "k", "value": "v" * 1001}]}, "Limit=1000, Size=1001."),
        ({"params": [{"key": "before", "value": "2"}]}, "logged before with another value"),
    ],
)
def test_what_the_service_does_not_take_is_refused_and_nothing_of_it_kept(
    azure: Client, batch: dict[str, Any], word: str
) -> None:
    before = {"run_id": "named", "params": [{"key": "before", "value": "1"}]}
    mlflow(azure, "POST", "runs/log-batch", before)
    mlflow(azure, "POST", "runs/log-batch", before)  # the same value may come again
    kept = run(azure)

    more = {"run_id": "named", "tags": [{"key": "new", "value": "x"}], **batch}
    answer = mlflow(azure, "POST", "runs/log-batch", more, 400)

    assert word in answer["Error"]["Message"]
    assert answer["error_code"] in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
    assert run(azure) == kept


@pytest.mark.parametrize(
    "path", ["runs/get?run_id=x", "runs/get", "experiments/get?experiment_id=x"]
)
def test_what_is_not_there_is_not_found_in_mlflows_words(empty: Client, path: str) -> None:
    assert mlflow(empty, "GET", path, expect=404)["error_code"] == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize(
    ("path", "body"), [("runs/create", {}), ("runs/search", {"filter": "metrics.loss < 1"})]
)
def test_what_is_not_emulated_says_so(empty: Client, path: str, body: dict[str, Any]) -> None:
    empty.meant = "501"

    assert mlflow(empty, "POST", path, body, 501)["error"]["code"] == "NotEmulated"


def test_an_artifact_is_written_once(azure: Client) -> None:
    folder = f"/history/v1.0{azure.workspace}/experiments/any/runs/named/artifacts"
    asked = {"paths": [{"path": "report.html"}]}

    made = azure.ask("POST", f"{folder}/batch/metadata", asked, api="")

    where = made["artifactContentInformation"]["report.html"]["contentUri"]
    assert "/azureml/ExperimentRun/dcid.named/report.html?" in where
    assert not made["errors"]
    azure.ask("GET", f"{folder}/contentinfo?path=report.html", api="", expect=404)

    azure.azure.storage.write("azureml", "ExperimentRun/dcid.named/report.html", b"page")

    again = azure.ask("POST", f"{folder}/batch/metadata", asked, api="")
    assert "already exists" in again["errors"]["report.html"]["error"]["message"]
    assert azure.ask("GET", f"{folder}/contentinfo?path=report.html", api="")["contentUri"] == where
    listed = azure.ask("GET", folder, api="")["value"]
    assert [each["path"] for each in listed] == ["report.html", "user_logs/std_log.txt"]


@pytest.mark.slow
def test_a_job_that_is_made_again_has_nothing_logged(azure: Client) -> None:
    mlflow(azure, "POST", "runs/log-batch", {"run_id": "named", "params": pairs(1)})

    azure.ask("DELETE", "jobs/named", api="2025-01-01-preview", expect=202)
    azure.settled()
    azure.job("named", "true")

    azure.ended("named")
    assert run(azure)["data"]["params"] == []


@pytest.mark.slow
def test_a_job_logs_by_azureml_mlflow_and_anybody_reads_it(
    local_azure: Server, tmp_path: Path
) -> None:
    azure = Client(local_azure)
    azure.environment_id = azure.environment("tracking")
    script = JOB.format(root=ROOT)
    command = f"cat >job.py <<'END'\n{script}END\npython job.py"
    azure.job("tracked", command, experimentName="homeport", tags={"homeport": "1"})

    azure.until("tracked", "Completed", "Failed", seconds=60)

    uri = f"azureml://eastus.api.azureml.ms/mlflow/v1.0{azure.workspace}"
    assert azure.log("tracked") == f"tracking: {uri} (MLFLOW_TRACKING_URI)\n"
    read = _read(local_azure, uri, tmp_path)
    assert read.pop("took") > 0
    params, tags = read.pop("params"), read.pop("tags")
    assert params["training.learning_rate"] == "0.0012"
    assert {key: tags[key] for key in ("homeport", "from")} == {"homeport": "1", "from": "the job"}
    assert read == {
        "status": "FINISHED",
        "experiment": "homeport",
        "by_name": True,
        "unknown": None,
        "found": "tracked",
        "metrics": {"loss": 4.0, "evaluation/loss": 4.1},
        "losses": [[0, 6.7], [20, 4.1]],
        "paths": ["report.html", "user_logs"],
        "page": "<!DOCTYPE html>",
    }
    assert not local_azure.report()["problems"]


def _read(server: Server, uri: str, folder: Path) -> Any:
    """In a process of its own: azureml-mlflow keeps its login for the life of a process."""
    cloud = {"MLFLOW_TRACKING_URI": uri, "AZUREML_CURRENT_CLOUD": "AzureCloud"}
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder)],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **server.env, **cloud},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

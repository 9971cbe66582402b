"""Tracking with the real MLflow and its SQLite store; no server but one that is not there."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from train import recipe as recipes
from train.errors import Interrupted
from train.recipe import Recipe
from train.runs import write_json
from train.tracking import REMEMBERED, STORE, TALKATIVE, Tracker, flatten, opened

METRICS = {
    "before": {"loss": 6.7, "rows": 16, "reasoning_in_language": None, "samples": [{}]},
    "after": {"loss": 4.1, "rows": 16},
    "training": {"steps": 20},
}
LOGS = {"loss": 5.5, "grad_norm": float("nan"), "note": "no number", "tokens_per_second": 900.0}
SPEED = {
    "train_runtime": 9.1,
    "train_tokens_per_second": 880.0,
    "eval_steps_per_second": 3.0,
    "eval_samples_per_second": 6.0,
    "total_flos": 1e9,
}
"""A trainer's own, for which the 50 names of metrics that Azure ML takes are too few."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tracking server is set, and what tracking sets is gone afterwards."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    levels = {name: logging.getLogger(name).level for name in TALKATIVE}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return recipes.load("recipes/tiny-ja.yaml", environ={})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-ja" / "20260101-120000-ab12"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<!DOCTYPE html>", encoding="utf-8")
    return folder


def train(tracker: Tracker, step: int = 10) -> None:
    """What a trainer does at every logging step."""
    for callback in tracker.callbacks():
        callback.on_log(None, SimpleNamespace(global_step=step), None, logs={**LOGS, **SPEED})


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    """What tracking and its libraries warned of."""
    ours = ("train", *TALKATIVE)
    return [r.getMessage() for r in log.records if r.levelno >= 30 and r.name.startswith(ours)]


def stored(outputs: Path, run_id: str) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{outputs / STORE}")
    return client, client.get_run(run_id)


@pytest.mark.slow
def test_a_run_is_stored_with_recipe_curves_comparison_and_report(
    recipe: Recipe,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with opened(recipe, folder, tmp_path) as tracker:
        train(tracker, 10)
        train(tracker, 20)
        tracker.finish(METRICS, folder / "report.html")
    client, run = stored(tmp_path, tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == folder.name
    assert client.get_experiment(run.info.experiment_id).name == "tiny-ja"
    assert run.data.params["training.learning_rate"] == "0.0012"
    assert run.data.params["model.revision"] == "null"
    assert run.data.metrics == {
        "loss": 5.5,
        "tokens_per_second": 900.0,
        "evaluation/loss": 4.1,
        "evaluation/rows": 16,
    }
    compared = client.get_metric_history(tracker.run_id, "evaluation/loss")
    assert [(m.step, m.value) for m in compared] == [(0, 6.7), (20, 4.1)]
    assert [m.step for m in client.get_metric_history(tracker.run_id, "loss")] == [10, 20]
    assert [a.path for a in client.list_artifacts(tracker.run_id)] == ["report.html"]
    assert run.info.artifact_uri.startswith(f"file://{tmp_path}/mlflow.artifacts/tiny-ja/")
    assert not warnings_in(caplog)
    assert not capfd.readouterr().err


@pytest.mark.slow
def test_a_run_that_goes_on_goes_on_in_its_mlflow_run(
    recipe: Recipe, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted), opened(recipe, folder, tmp_path) as first:
        train(first, 10)
        raise Interrupted("stopped")
    client, run = stored(tmp_path, first.run_id)
    assert run.info.status == "KILLED"
    with opened(recipe, folder, tmp_path) as second:
        assert client.get_run(first.run_id).info.status == "RUNNING"
        train(second, 20)
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(first.run_id, "loss")] == [10, 20]

    client.delete_run(first.run_id)
    with pytest.raises(ZeroDivisionError), opened(recipe, folder, tmp_path) as third:
        _ = 1 / 0
    assert third.run_id != first.run_id
    assert client.get_run(third.run_id).info.status == "FAILED"


@pytest.mark.slow
def test_a_jobs_own_run_is_used_and_not_ended(
    recipe: Recipe, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Azure ML, which sets both variables and itself says how the job ended."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'server.db'}"
    client = MlflowClient(tracking_uri=uri)
    job = client.create_run(client.create_experiment("jobs")).info.run_id
    client.log_param(job, "training.epochs", "set by the job")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", job)
    with opened(recipe, folder, tmp_path) as tracker:
        train(tracker)
    run = client.get_run(job)
    assert tracker.run_id == job
    assert run.info.status == "RUNNING"
    assert run.data.metrics["loss"] == 5.5
    assert run.data.params["training.epochs"] == "set by the job"
    assert run.data.params["name"] == "tiny-ja"
    assert not (folder / REMEMBERED).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        "http://user:secret@127.0.0.1:{port}",
        "azureml://127.0.0.1:{port}/mlflow/v1.0/subscriptions/0/resourceGroups/r/providers/"
        "Microsoft.MachineLearningServices/workspaces/w",
        "nonsense://x",
    ],
)
def test_a_server_that_cannot_be_reached_is_one_warning_and_no_end(
    recipe: Recipe,
    folder: Path,
    tmp_path: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(port=port))
    # a job's token: without one the libraries would look for the credentials of a person
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "x.x.x")
    monkeypatch.setenv("MLFLOW_RUN_ID", "job")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "jobs")
    with opened(recipe, folder, tmp_path) as tracker:
        train(tracker)
        tracker.finish(METRICS, folder / "report.html")
    warnings = warnings_in(caplog)
    assert len(warnings) == 1, warnings
    assert warnings[0].startswith("tracking: off from here on, the training goes on without it")
    assert "secret" not in warnings[0]
    assert not (tmp_path / STORE).exists()


@pytest.mark.slow
def test_a_store_that_is_lost_on_the_way_is_one_warning_and_no_end(
    recipe: Recipe, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(recipe, folder, tmp_path) as tracker:
        train(tracker)
        (tmp_path / STORE).write_bytes(b"no database" * 100)
        train(tracker)
        train(tracker)
        tracker.finish(METRICS, folder / "report.html")
    assert len(warnings_in(caplog)) == 1


@pytest.mark.parametrize("reason", ["switched off", "not the main process"])
def test_where_nothing_is_to_be_tracked_nothing_is_made(
    folder: Path, tmp_path: Path, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = ["training.tracking=false"] if reason == "switched off" else []
    if not off:
        monkeypatch.setenv("RANK", "1")
    recipe = recipes.load("recipes/tiny-ja.yaml", off, environ={})
    before = sorted(tmp_path.rglob("*"))
    with opened(recipe, folder, tmp_path) as tracker:
        assert tracker.callbacks() == []
        tracker.finish(METRICS, folder / "report.html")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_run_remembered_on_another_server_is_not_looked_for_here(
    recipe: Recipe, folder: Path, tmp_path: Path
) -> None:
    write_json(folder / REMEMBERED, {"uri": "https://elsewhere", "run_id": "0" * 32})
    with opened(recipe, folder, tmp_path) as tracker:
        pass
    assert tracker.run_id != "0" * 32
    assert tracker.client is not None


def test_the_recipe_becomes_flat_parameters_that_a_server_takes() -> None:
    nested = {"name": "n", "lora": {"r": 8, "target": ["a", "b"], "none": None}, "empty": ""}
    assert flatten(nested) == {
        "name": "n",
        "lora.r": "8",
        "lora.target": '["a", "b"]',
        "lora.none": "null",
        "empty": '""',
    }
    assert len(flatten({"persona": "長" * 900})["persona"]) == 500

from typing import Any

import pytest

from scripts.azure import client, steps
from scripts.azure.client import Cloud
from scripts.azure.history import Details
from scripts.azure.steps import Watch
from tests.scripts.azure.stand_ins import cloud_of

RUNS: dict[str, list[tuple[str, str, str]]] = {
    "job": [("pipe", "chat_completion_pipeline", "Running")],
    "pipe": [
        ("two", "chat_completion_finetune", "Running"),
        ("one", "chat_completion_model_import", "Completed"),
    ],
}
"""Children by run: id, title, status; the order of their making is that of their ids."""
METRICS = {"two": {"train_loss": 1.5, "mlflow.note": 1.0}, "job": {"loss": 0.5}}


def answer(path: str, **query: Any) -> Any:
    name = path.rpartition("/runs/")[2].partition("/")[0]
    if path.endswith("/children"):
        rows = RUNS.get(name, [])
        return {
            "value": [
                {"runId": run, "displayName": title, "status": status, "createdUtc": run}
                for run, title, status in rows
            ]
        }
    if path.endswith("/details"):
        states = {run: status for rows in RUNS.values() for run, _, status in rows}
        return {"status": states[name], "logFiles": {}}
    if path.endswith("/runs/get"):
        if query["run_id"] not in METRICS:
            raise client.NotFound("none", 404)
        logged = [{"key": k, "value": v} for k, v in METRICS[query["run_id"]].items()]
        return {"run": {"data": {"metrics": logged}}}
    raise AssertionError(path)


@pytest.fixture
def cloud() -> Cloud:
    found = cloud_of(get=answer)
    rest: Any = found.rest
    rest.all = lambda path, api="", **query: answer(path, **query)["value"]
    return found


def running(status: str = "Running") -> Details:
    return Details(status=status, logs={}, error="", started=None, ended=None)


def test_steps_of_steps_are_found_in_the_order_of_their_making(cloud: Cloud) -> None:
    found = steps.under(cloud, "job")
    assert [(step.title, step.depth) for step in found] == [
        ("chat_completion_pipeline", 1),
        ("chat_completion_model_import", 2),
        ("chat_completion_finetune", 2),
    ]
    assert [step.over for step in found] == [False, True, False]


def test_metrics_stand_under_the_step_that_logged_them(cloud: Cloud) -> None:
    found = steps.measured(cloud, "job")
    assert found == {"pipeline": {"loss": 0.5}, "chat_completion_finetune": {"train_loss": 1.5}}
    assert [line.split() for line in steps.table(found)] == [
        ["pipeline", "loss", "0.5"],
        ["chat_completion_finetune", "train_loss", "1.5"],
    ]
    assert steps.table({}) == []


def test_a_change_of_state_is_told_once(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    watch = Watch(cloud, lambda: "job", lambda line: None, clock=lambda: now[0])
    watch.look(running())
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "step:   chat_completion_pipeline Running",
        "step:     chat_completion_model_import Completed",
        "step:     chat_completion_finetune Running",
    ]
    changed = {**RUNS, "pipe": [("two", "chat_completion_finetune", "Failed"), RUNS["pipe"][1]]}
    monkeypatch.setattr("tests.scripts.azure.test_steps.RUNS", changed)
    watch.look(running())
    assert capsys.readouterr().err == ""  # too early for another look
    now[0] = steps.LOOK_SECONDS
    watch.look(running())
    assert capsys.readouterr().err.splitlines() == ["step:     chat_completion_finetune Failed"]


def test_the_end_of_the_job_is_looked_at_at_once(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(cloud, "job", lambda line: None, clock=lambda: 0.0)
    watch.look(running())
    capsys.readouterr()
    changed = {**RUNS, "pipe": [("two", "chat_completion_finetune", "Completed")]}
    monkeypatch.setattr("tests.scripts.azure.test_steps.RUNS", changed)
    watch.look(running("Completed"))
    assert "chat_completion_finetune Completed" in capsys.readouterr().err


def test_a_look_that_fails_is_made_up_for_later() -> None:
    def broken(path: str, **_: Any) -> Any:
        raise client.Refused("away", 503)

    cloud = cloud_of()
    rest: Any = cloud.rest
    rest.all = lambda path, api="", **query: broken(path)
    Watch(cloud, "job", lambda line: None).look(running())

"""The verbs of a job show whatever its route finds out, the same way: log, end, results."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.azure import client, routes
from scripts.cloud_download import servable
from tests.scripts.azure.stand_ins import cloud_of


class Recorded:
    """A route that notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str]] = []

    def logs(self, cloud: Any, recipe: Any, job: str, *, every: bool = False) -> dict[str, Any]:
        self.asked.append(("every log" if every else "log", job))
        found = {"job": "geo-1", "status": "Completed", "error": ""}
        return {**found, "logs": {"std_log.txt": "首都\n"}} if every else found

    def cancel(self, cloud: Any, recipe: Any, job: str) -> dict[str, Any]:
        self.asked.append(("cancel", job))
        return {"job": "geo-1", "status": "Canceled", "tokens": 7}

    def download(self, cloud: Any, recipe: Any, job: str, outputs: Path) -> tuple[str, Path]:
        self.asked.append(("download", job))
        return "geo-1", self.folder


@pytest.fixture
def route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded(tmp_path)
    monkeypatch.setattr(routes, "of_job", lambda cloud, recipe, job: recorded)
    monkeypatch.setattr(client, "connect", cloud_of)
    for name in ("JOB", "RECIPE", "SET", "JSON", "ALL", "ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return recorded


def run(monkeypatch: pytest.MonkeyPatch, verb: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [verb, *arguments])
    importlib.import_module(f"scripts.{verb}").main()


def test_a_log_is_followed_and_with_all_shown_by_file(
    route: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "cloud_logs", "--job", "geo-1")
    assert capsys.readouterr().out == ""
    run(monkeypatch, "cloud_logs", "--all")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("首都\n\n", "--- std_log.txt\n")
    run(monkeypatch, "cloud_logs", "--json")
    assert json.loads(capsys.readouterr().out) == {
        "job": "geo-1",
        "status": "Completed",
        "error": "",
        "label": "",
        "logs": {"std_log.txt": "首都\n"},
    }
    assert route.asked == [("log", "geo-1"), ("every log", ""), ("every log", "")]


def test_cancelling_prints_the_state_or_all_that_the_route_tells(
    route: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "cloud_cancel")
    assert capsys.readouterr().out == "Canceled\n"
    run(monkeypatch, "cloud_cancel", "--job", "geo-1", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told == {"job": "geo-1", "status": "Canceled", "tokens": 7, "label": ""}
    assert route.asked == [("cancel", ""), ("cancel", "geo-1")]


def test_a_download_says_how_to_serve_it_only_where_it_holds_a_model(
    route: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "cloud_download")
    shown = capsys.readouterr()
    assert shown.out == f"{route.folder}\n"
    assert "next:" not in shown.err
    model = route.folder / "mlflow_model_folder/data/model"
    model.mkdir(parents=True)
    (model / "config.json").touch()
    run(monkeypatch, "cloud_download")
    assert f"next:   make local-serve MODEL={model}" in capsys.readouterr().err


def test_a_run_is_served_as_a_whole(tmp_path: Path) -> None:
    assert servable(tmp_path) is None
    for folder in ("adapter", "merged"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").touch()
    assert servable(tmp_path) == tmp_path

"""`make track` with a stand-in for MLflow's server that only says that it is well."""

import hashlib
import socket
import sqlite3
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest

from scripts import track
from scripts.errors import MachineError, UsageError

SERVER = """\
    import http.server, sys

    class Well(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

    print("arguments:", *sys.argv[1:], flush=True)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Well).serve_forever()
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of the verb's own, and in place of MLflow's environment a small server."""
    monkeypatch.setattr(track, "STORE", tmp_path / "mlflow.db")
    monkeypatch.setattr(track, "LOG", tmp_path / "track.log")
    monkeypatch.setattr(track, "LOCK", tmp_path / "track.txt")
    monkeypatch.setattr(track, "VENV", tmp_path / "venv")
    (tmp_path / "track.txt").write_text("mlflow==0\n")
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/.homeport").write_text(hashlib.sha256(b"mlflow==0\n").hexdigest())
    (tmp_path / "server.py").write_text(textwrap.dedent(SERVER))
    python = tmp_path / "venv/bin/python"
    # a child of its own, as MLflow's command has
    python.write_text(f'#!/bin/sh\n"{sys.executable}" "{tmp_path}/server.py" "$@"\n')
    python.chmod(0o755)
    return tmp_path


def store(file: Path, *runs: tuple[int, int]) -> None:
    """A database with the columns that are read of MLflow's: experiment and start of each run."""
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE runs (experiment_id INTEGER, start_time BIGINT)")
    connection.executemany("INSERT INTO runs VALUES (?, ?)", runs)
    connection.commit()
    connection.close()


def test_without_a_tracked_run_it_says_how_to_get_one(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["track"])
    with pytest.raises(UsageError, match="no tracked run yet; next: make local-train"):
        track.main()


@pytest.mark.parametrize("text", ["80", "70000", "x", ""])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="TRACK_PORT is"):
        track.read_port(text)


def test_a_port_in_use_is_refused_with_another_to_try(port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(MachineError, match=f"make track TRACK_PORT={port + 1}"):
            track.need_port(port)
    track.need_port(port)


def test_the_address_is_the_experiment_of_the_newest_run(installed: Path) -> None:
    store(track.STORE, (1, 100), (3, 300), (2, 200))
    assert track.address(5050).startswith("http://127.0.0.1:5050/#/experiments/3/runs")


def test_without_runs_the_address_is_the_front_page(installed: Path) -> None:
    store(track.STORE)
    assert track.address(5050) == "http://127.0.0.1:5050"


@pytest.mark.slow
def test_the_query_fits_mlflows_own_database(installed: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{track.STORE}")
    experiment = client.create_experiment("tiny-ja")
    client.create_run(experiment)
    assert f"/experiments/{experiment}/runs" in track.address(5050)


def test_the_server_is_up_inside_the_block_and_gone_after_it(installed: Path, port: int) -> None:
    with track.on_host(port) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 200
        assert server.poll() is None
    assert server.returncode is not None
    assert not track.answers(port)  # its child is gone too
    log = track.LOG.read_text()
    assert f"--host 127.0.0.1 --port {port}" in log
    assert f"sqlite:///{track.STORE}" in log


def test_a_server_that_ends_at_once_leaves_its_last_words(
    installed: Path, port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    (installed / "server.py").write_text("raise SystemExit('the database is too new')")
    with pytest.raises(MachineError, match="MLflow did not start"), track.on_host(port):
        pass
    assert "the database is too new" in capfd.readouterr().err


@pytest.mark.slow
def test_help_answers_without_a_store() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.track", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "make track" in done.stdout

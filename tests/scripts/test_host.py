import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import host
from scripts.host import Host
from scripts.runtime import Choice

PORT = 5999


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(host, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(host, "CACHE", tmp_path / ".cache")
    return Host(dict(os.environ), Choice("cpu", "test"))


def remember(pid: int, started: str) -> None:
    host.state_file(PORT).write_text(json.dumps({"pid": pid, "started": started, "model": "x"}))


def test_the_mounted_version_contains_the_models_folder_and_nothing_else(tmp_path: Path) -> None:
    version = tmp_path / "azureml-models/tiny/1"
    for name in ("merged", "other"):
        (tmp_path / name).mkdir()
        host.mount(version, tmp_path / name)
    assert [path.name for path in version.iterdir()] == ["other"]
    assert (version / "other").resolve() == tmp_path / "other"


def test_our_server_is_stopped_and_forgotten(runtime: Host) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    remember(process.pid, host.started(process.pid))
    assert runtime.running() == [PORT]
    assert runtime.stop(PORT)
    assert runtime.running() == []
    assert not runtime.stop(PORT)
    assert process.wait() is not None


def test_another_program_that_got_our_servers_number_is_left_alone(runtime: Host) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        remember(process.pid, "Mon Jan  1 00:00:00 2001")
        assert runtime.running() == []
        assert not runtime.stop(PORT)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_port_without_a_server_does_not_answer() -> None:
    assert not host.answers(1)

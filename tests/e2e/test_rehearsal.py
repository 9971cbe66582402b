"""The cloud path in a fresh clone, against a local Azure, in containers and in processes."""

import json
import shutil
from pathlib import Path

import pytest

from scripts.runtime import missing_docker
from tests.e2e.conftest import clone

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("runtime", ["docker", "host"])
def test_a_rehearsal_in_a_fresh_clone_passes_and_leaves_nothing(
    runtime: str, tmp_path: Path
) -> None:
    if runtime == "docker" and (reason := missing_docker()):
        pytest.skip(f"the Docker runtime was not tested: {reason}")
    if runtime == "host" and not shutil.which("npm"):
        pytest.skip("the local Azure was not tested without Docker: npm is not installed")
    fresh = clone(tmp_path / "home port", runtime)
    done = fresh.make("rehearse", minutes=25)
    report = json.loads(Path(fresh.folder, done.stdout.splitlines()[-1]).read_text())
    assert report["passed"]
    assert report["label"] == "rehearsed, not Azure"
    assert "キャンベラ" in report["findings"]["curl with the key answers"]["found"]
    assert "passed: rehearsed, not Azure" in done.stderr
    assert "no local Azure is running" in fresh.make("rehearsal-down").stderr


def test_every_fault_ends_as_it_should(tmp_path: Path) -> None:
    if not shutil.which("npm"):
        pytest.skip("faults were not tested: npm is not installed")
    fresh = clone(tmp_path / "home port", "host")
    done = fresh.make("rehearse", "FAULTS=1", minutes=25)
    report = json.loads(Path(fresh.folder, done.stdout.splitlines()[-1]).read_text())
    assert len(report["findings"]) >= 13
    assert all(finding["holds"] for finding in report["findings"].values())

"""What can go wrong on the way to the cloud, in a fresh clone against a local Azure."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import bring_base, clone, rehearsed

pytestmark = pytest.mark.e2e


def test_every_fault_and_kill_ends_as_it_should(tmp_path: Path) -> None:
    """Without Docker, so that both ways to run the jobs are rehearsed."""
    if not shutil.which("npm"):
        pytest.skip("the local Azure was not tested without Docker: npm is not installed")
    fresh = clone(tmp_path / "home port", "host")
    bring_base(fresh)
    findings = rehearsed(fresh, "FAULTS=1", "KILLS=10")
    assert len(findings) >= 19
    assert all(finding["holds"] for finding in findings.values())

"""`make cloud-plan` answers without a workspace, and says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import cloud_plan
from scripts.azure.client import KEYS
from tests.tree import ROOT


def run(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The verb in a process of its own, where no workspace is set but by `variables`."""
    environ = {k: v for k, v in os.environ.items() if k not in KEYS and k != "CLOUD_PRICES"}
    return subprocess.run(
        [sys.executable, "-m", "scripts.cloud_plan", *flags],
        cwd=ROOT,
        env={**environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_answers_without_loading_the_sdk() -> None:
    code = "import sys, scripts.cloud_plan; sys.exit('azure.ai' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    assert "--specs FOLDER" in run("--help").stdout


def test_the_plan_stands_on_stdout_and_why_nobody_was_asked_on_stderr() -> None:
    done = run("--offline")
    assert done.returncode == 0
    assert "costs at most $0.25" in done.stdout
    assert "azure:  not asked (--offline)" in done.stderr
    assert "next:   make cloud-train RECIPE=recipes/tiny-ja.yaml" in done.stderr


def test_json_is_one_object_and_overrides_count() -> None:
    flags = ["--set", "cloud.nodes=3 cloud.max_hours=2", "--offline", "--json"]
    values = json.loads(run(*flags).stdout)
    assert values["train"]["ceiling"] == pytest.approx(3 * 2 * 0.252)


def test_a_job_without_a_limit_exits_with_2() -> None:
    done = run("--offline", "--set", "cloud.max_hours=.inf")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: cloud.max_hours is inf")


def test_specs_are_written_where_asked(tmp_path: Path) -> None:
    done = run("--offline", SPECS=str(tmp_path / "specs"))
    assert done.returncode == 0
    assert (tmp_path / "specs/job.yml").is_file()
    assert f"wrote:  {tmp_path}/specs/job.yml" in done.stderr


def test_a_workspace_is_asked_as_soon_as_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(cloud_plan, "ROOT", Path("/nowhere"))
    assert "AZURE_WORKSPACE" in cloud_plan.reason_offline(False)
    monkeypatch.setenv("AZURE_WORKSPACE", "mine")
    assert cloud_plan.reason_offline(False) == ""
    assert cloud_plan.reason_offline(True) == "--offline"

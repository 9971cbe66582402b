"""The workflow for forks: nothing in it moves by itself, may write, or bills unasked."""

import re
from typing import Any

import pytest
import yaml

from tests.tree import ROOT

TEXT = (ROOT / ".github/workflows/homeport.yml").read_text(encoding="utf-8")
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
JOBS: dict[str, Any] = WORKFLOW["jobs"]
ON = WORKFLOW[True]
"""YAML 1.1 reads the key `on` as true."""


@pytest.mark.parametrize("used", sorted(set(re.findall(r"uses: (.+)", TEXT))))
def test_every_action_is_pinned_by_its_commit(used: str) -> None:
    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+", used)


def test_nothing_may_write_and_only_the_deployment_gets_a_token_for_azure() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    extra = {name: job["permissions"] for name, job in JOBS.items() if "permissions" in job}
    assert extra == {"deploy": {"contents": "read", "id-token": "write"}}
    assert "secrets." not in TEXT


@pytest.mark.parametrize("name", list(JOBS))
def test_every_job_ends_by_itself_and_keeps_no_credentials(name: str) -> None:
    assert 0 < JOBS[name]["timeout-minutes"] <= 360
    checkouts = [s for s in JOBS[name]["steps"] if "checkout" in s.get("uses", "")]
    assert checkouts
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_only_somebody_who_asks_deploys_and_only_what_passed() -> None:
    job = JOBS["deploy"]
    assert job["if"] == "github.event_name == 'workflow_dispatch' && inputs.deploy != ''"
    assert set(job["needs"]) == {"test", "rehearse"}
    assert ON["workflow_dispatch"]["inputs"]["deploy"]["default"] == ""


def test_every_command_is_a_target() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"make ([a-z-]+)", TEXT))
    assert {"test", "rehearse", "cloud-deploy"} <= used <= targets

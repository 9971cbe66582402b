"""The cloud verbs typed as the README has them, in a fresh clone with a local Azure."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Clone, bring_base, clone

pytestmark = pytest.mark.e2e

QUICK = "training.max_steps=2 evaluation.rows=1 evaluation.max_new_tokens=4 cloud.endpoint=quick"
WRITE_TO_VAULT = """
import sys
from scripts.azure import vault
from scripts.azure.client import connect
vault.put(connect(), "hub-token", sys.stdin.read())
"""


class Cloud:
    """A clone whose local Azure is up."""

    def __init__(self, fresh: Clone, shell_line: str) -> None:
        self.clone = fresh
        # what the printed line does to a shell
        lines = fresh.shell(
            f"{shell_line}; env | grep -E '^(AZURE|.*_PROXY|.*CA_BUNDLE|SSL|HOMEPORT_R)'"
        )
        self.environ = dict(line.split("=", 1) for line in lines.splitlines())

    def make(self, target: str, expect: int = 0, **variables: str) -> tuple[str, str]:
        """What `make TARGET NAME=value…` printed on stdout, and on stderr."""
        given = {"SET": QUICK, "YES": "1", **variables}
        words = [f"{name}={value}" for name, value in given.items()]
        made = 0 if not expect else 2  # make's own code of a verb that failed
        done = self.clone.make("-s", target, *words, expect=made, environ=self.environ)
        if expect:
            assert f"Error {expect}" in done.stderr
        return done.stdout, done.stderr

    def python(self, program: str, stdin: str) -> None:
        """Run a program with the verbs' own modules."""
        environ = {**os.environ, **self.environ}
        command = [sys.executable, "-c", program]
        folder = self.clone.folder
        subprocess.run(command, cwd=folder, env=environ, input=stdin, text=True, check=True)

    def json(self, target: str, **variables: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.make(target, 0, JSON="1", **variables)[0])
        return found


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if not shutil.which("npm"):
        pytest.skip("the cloud verbs were not tested: npm is not installed")
    fresh = clone(tmp_path_factory.mktemp("cloud with spaces") / "home port", "host")
    bring_base(fresh)
    said = fresh.make("rehearsal-up", minutes=10).stderr
    line = re.search(r"use it:  (.*); make cloud-plan", said)
    assert line
    try:
        yield Cloud(fresh, line.group(1))
    finally:
        fresh.make("rehearsal-down")


def test_a_plan_says_what_a_large_model_may_cost_and_starts_nothing(cloud: Cloud) -> None:
    said = cloud.make("cloud-plan", RECIPE="recipes/gpt-oss-20b-ja.yaml", SET="")[0]
    assert "1 x Standard_NC40ads_H100_v5" in said
    assert re.search(r"costs at most \$\d+\.\d\d \(1 x 4 h x \$", said)
    assert cloud.json("cloud-status")["jobs"] == []
    folder = cloud.clone.folder / "specs"
    cloud.make("cloud-plan", RECIPE="recipes/gpt-oss-20b-ja.yaml", SET="", SPECS=str(folder))
    assert "Standard_NC40ads_H100_v5" in (folder / "job.yml").read_text()


@pytest.mark.parametrize("recipe", ["phi-3-mini-ultrachat", "mistral-7b-samsum", "azure-openai-ja"])
def test_every_route_is_planned_with_its_ceiling(cloud: Cloud, recipe: str) -> None:
    said = cloud.make("cloud-plan", RECIPE=f"recipes/{recipe}.yaml", SET="")[0]
    assert re.search(r"costs at most( about)? \$\d", said)
    assert cloud.json("cloud-status")["bills"] == []


def test_advice_names_the_route_that_we_would_take(cloud: Cloud) -> None:
    said = cloud.make("advise", RECIPE="recipes/phi-3-mini-ultrachat.yaml", SET="")[0]
    assert "2025-08-30" in said
    assert re.search(r"take.*command_job", said)


def test_from_training_to_rollback_and_down(cloud: Cloud) -> None:
    first = cloud.json("cloud-train")
    log = cloud.make("cloud-logs", JOB=str(first["job"]))[0]
    assert "merged:" in log
    cloud.make("cloud-download", JOB=str(first["job"]))
    assert (cloud.clone.folder / "outputs/tiny-ja/latest/merged/model.safetensors").is_file()

    base = next(Path(cloud.clone.folder / ".cache/rehearsal").rglob("homeport/tiny-*/config.json"))
    staged = f"{QUICK} model.base={base.parent.relative_to(cloud.clone.folder)}"
    cloud.make("cloud-stage", SET=staged)
    cloud.python(WRITE_TO_VAULT, stdin="hf_secret")
    tokened = f"{staged} training.seed=2 cloud.hub_token_secret=hub-token"
    second = cloud.json("cloud-train", SET=tokened)
    assert second["job"] != first["job"]
    log = cloud.make("cloud-logs", JOB=str(second["job"]))[0]
    assert "hub token: from https://homeportrehearsal.vault.azure.net/secrets/hub-token" in log
    assert "hf_secret" not in log

    cloud.json("cloud-deploy", MODEL=str(first["model"]).removeprefix("azureml:"))
    cloud.json("cloud-deploy", MODEL=str(second["model"]).removeprefix("azureml:"))
    assert {name: share for name, share in traffic(cloud).items() if share} != {}
    served = next(name for name, share in traffic(cloud).items() if share == 100)
    cloud.make("cloud-rollback")
    now = traffic(cloud)
    assert now[served] == 0
    assert sorted(now.values()) == [0, 100]
    assert "finish_reason" in cloud.make("ask", TARGET="cloud", PROMPT="x", JSON="1")[0]
    cloud.make("cloud-deploy", MODEL=str(first["model"]).removeprefix("azureml:"), FINISH="1")
    assert sorted(traffic(cloud).values()) == [100]
    assert len(cloud.make("cloud-key")[0].strip()) > 20

    cloud.make("cloud-down")
    assert cloud.json("cloud-status")["bills"] == []
    assert "there is nothing to delete" in cloud.make("cloud-down")[1]


def traffic(cloud: Cloud) -> dict[str, int]:
    """Percent of the endpoint's traffic, by deployment."""
    endpoints = cloud.json("cloud-status")["endpoints"]
    assert isinstance(endpoints, list)
    return {d["name"]: d["traffic"] for e in endpoints for d in e["deployments"]}


def test_a_job_that_is_detached_from_can_be_cancelled(cloud: Cloud) -> None:
    job = cloud.json("cloud-train", SET="training.epochs=50", DETACH="1")["job"]
    cloud.make("cloud-cancel", JOB=str(job))
    assert cloud.json("cloud-status")["bills"] == []


def test_nothing_of_it_was_unknown_to_the_local_azure(cloud: Cloud) -> None:
    control = cloud.environ["HOMEPORT_REHEARSAL_CONTROL"]
    report = json.loads(cloud.clone.shell(f"curl -s --noproxy '*' {control}/report"))
    assert report["problems"] == []

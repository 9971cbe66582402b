"""The verb in a process of its own, against the local Azure, whose jobs really train."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from unittest.mock import patch

import pytest

from emulator.server import Server
from tests import local_azure as local
from tests.scripts.azure.stand_ins import requests_of
from tests.tree import ROOT
from tests.waiting import until
from train import tiny

pytestmark = pytest.mark.slow
SHORT = "training.max_steps=1 evaluation.rows=0 cloud.instance_type=Standard_DS3_v2"


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its nodes have the base model, after a step of the warm-up, which takes minutes."""
    folder = tmp_path_factory.mktemp("azure")
    with patch.object(tiny, "WARMUP_STEPS", 1):
        tiny.ensure(folder / "nodes/tmp/homeport")
    with local.local_azure(folder, hurry=0.1) as server:
        yield server


def verb(server: Server, name: str, arguments: Sequence[str]) -> "subprocess.Popen[str]":
    environ = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.Popen(
        [sys.executable, "-m", f"scripts.{name}", *arguments],
        cwd=ROOT,
        env={**environ, **server.env, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server: Server, name: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the verb."""
    process = verb(server, name, arguments)
    stdout, stderr = process.communicate(timeout=150)
    print(stderr)
    return process.returncode, stdout, stderr


def jobs_of(server: Server) -> list[str]:
    """Names of the jobs that were asked for, once for each request."""
    return [entry["path"].rpartition("/")[2] for entry in requests_of(server, "PUT", "/jobs/")]


def test_killed_right_after_submission_and_given_again_it_is_one_job(azure: Server) -> None:
    arguments = ["--set", SHORT, "--json"]
    with verb(azure, "cloud_train", arguments) as first:
        until(lambda: bool(jobs_of(azure)), 60)
        first.send_signal(signal.SIGKILL)
    code, stdout, stderr = run(azure, "cloud_train", *arguments)
    assert code == 0
    assert "nothing is submitted" in stderr
    assert "step 1/1" in stderr
    done = json.loads(stdout)
    assert jobs_of(azure) == [done["job"]]
    assert done["model"] == "azureml:tiny-ja:1"
    assert done["label"] == "rehearsed, not Azure"

    code, stdout, stderr = run(azure, "cloud_train", *arguments)
    assert (code, json.loads(stdout)["model"]) == (0, "azureml:tiny-ja:1")
    assert "has done this already" in stderr
    assert jobs_of(azure) == [done["job"]]


def test_a_cancelled_job_is_named_and_the_next_call_makes_the_next_attempt(azure: Server) -> None:
    arguments = ["--set", f"{SHORT} training.seed=1", "--detach"]
    code, stdout, stderr = run(azure, "cloud_train", *arguments)
    first = stdout.strip()
    assert (code, jobs_of(azure)[-1]) == (0, first)
    assert "follow: make cloud-train RECIPE=" in stderr
    assert run(azure, "cloud_cancel", "--job", first)[:2] == (0, "Canceled\n")
    code, stdout, stderr = run(azure, "cloud_train", *arguments)
    assert (code, stdout.strip()) == (0, f"{first}-2")
    assert f"{first} Canceled: somebody cancelled it" in stderr
    assert run(azure, "cloud_cancel", "--job", f"{first}-2")[0] == 0

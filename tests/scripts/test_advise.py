"""The verb as a user meets it: offline within a second or so, and with what a login tells."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    keep = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = [sys.executable, "-m", "scripts.advise", *flags]
    return subprocess.run(
        command, cwd=ROOT, env=keep, capture_output=True, text=True, timeout=60, check=False
    )


def test_offline_it_answers_at_once() -> None:
    started = time.monotonic()
    done = run("--offline", "--recipe", "recipes/phi-3-mini-ultrachat.yaml")
    assert done.returncode == 0
    assert time.monotonic() - started < 5  # 0.5 s of work; the rest is for a busy machine
    assert "azure:  not asked (--offline)" in done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "→ command_job open $14.69 $3.67" in lines
    assert "registry_pipeline retired $14.69 $3.67" in lines
    assert "azure_openai closed - -" in lines
    assert lines[-1] == (
        "next: make cloud-plan RECIPE=recipes/phi-3-mini-ultrachat.yaml "
        'SET="cloud.route=command_job"'
    )


@pytest.mark.parametrize("name", ["mistral-7b-samsum", "azure-openai-ja", "gpt-oss-20b-ja"])
def test_json_is_one_object_with_all_four(name: str) -> None:
    done = run("--offline", "--json", "--recipe", f"recipes/{name}.yaml")
    found = json.loads(done.stdout)
    assert [verdict["route"] for verdict in found["verdicts"]] == [
        *("command_job", "registry_pipeline", "finetuning_job", "azure_openai")
    ]
    assert found["taken"] == found["own"]
    assert found["asked"] == ""


def test_overrides_count_and_a_wrong_one_is_a_sentence() -> None:
    flags = ["--offline", "--recipe", "recipes/mistral-7b-samsum.yaml"]
    done = run(*flags, "--set", "cloud.task=chat")
    assert "→  command_job" in done.stdout
    done = run(*flags, "--set", "cloud.tusk=chat")
    assert done.returncode == 2
    assert "did you mean task?" in done.stderr

"""The verbs as a user meets them: help, sentences and exit codes, without Docker or torch."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERBS = [
    *("doctor", "new_recipe", "local_check", "local_train", "local_serve", "local_stop"),
    *("local_logs", "local_key", "ask", "track"),
    *("advise", "cloud_plan", "cloud_push", "cloud_stage", "cloud_train", "cloud_logs"),
    "cloud_cancel",
    *("cloud_download", "cloud_deploy", "cloud_rollback", "cloud_key", "cloud_status"),
    *("cloud_down", "cloud_smoke", "rehearse"),
    *("upgrade", "sbom", "audit"),
    *("clean", "setup"),
]


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    keep = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        words, cwd=ROOT, env={**keep, **variables}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_at_once_and_names_the_verb(verb: str) -> None:
    started = time.monotonic()
    done = run(sys.executable, "-m", f"scripts.{verb}", "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout
    assert time.monotonic() - started < 3  # an import of torch alone takes longer


@pytest.mark.parametrize(
    ("words", "variables", "code", "sentence"),
    [
        (["local_serve", "--port", "80"], {}, 2, "PORT is '80': use a number from 1024"),
        (["local_serve"], {"PORT": "x"}, 2, "PORT is 'x'"),
        (["local_serve"], {"BIND": "10.0.0.1"}, 2, "BIND is '10.0.0.1': use 127.0.0.1"),
        (["local_serve"], {"KEY": "mine"}, 2, "KEY must be 1 or 0: the key itself is made for you"),
        (["local_serve"], {"BIND": "0.0.0.0", "KEY": "0"}, 2, "so it takes a key"),  # noqa: S104
        (["local_serve", "--debug"], {"DEBUG_PORT": "0"}, 2, "DEBUG_PORT is '0'"),
        (["local_serve"], {"MODEL": "/nowhere"}, 2, "MODEL=/nowhere is no folder, and no hub id"),
        (["local_serve"], {"RECIPE": "recipes/no.yaml"}, 2, "recipes/no.yaml does not exist"),
        (["local_train"], {"SET": "training.stepz=1"}, 2, "unknown key training.stepz"),
        (["local_train"], {"RUNTIME": "podman"}, 2, "RUNTIME is 'podman'"),
        (["local_train"], {"HOMEPORT_DEVICE": "tpu", "RUNTIME": "host"}, 2, "HOMEPORT_DEVICE"),
        (["ask"], {}, 2, "PROMPT is empty"),
        (["ask", "--prompt", "x", "--port", "1025"], {}, 3, "no server answers on port 1025"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    words: list[str], variables: dict[str, str], code: int, sentence: str
) -> None:
    done = run(sys.executable, "-m", f"scripts.{words[0]}", *words[1:], **variables)
    assert sentence in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_docker_asked_for_in_vain_is_refused_and_never_replaced() -> None:
    variables = {"RUNTIME": "docker", "DOCKER_HOST": "tcp://127.0.0.1:1"}
    done = run(sys.executable, "-m", "scripts.local_serve", **variables)
    assert "error: RUNTIME=docker, but" in done.stderr
    assert "use RUNTIME=host" in done.stderr
    assert done.returncode == 3


def test_a_port_that_another_program_holds_is_refused_before_anything_is_made() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run(sys.executable, "-m", "scripts.local_serve", RUNTIME="host", PORT=str(port))
    assert f"port {port} is in use by another program" in done.stderr
    assert done.returncode == 3


def test_make_alone_lists_every_target_with_what_it_does() -> None:
    done = run("make")
    targets = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")]
    assert targets == [
        *("doctor", "new-recipe", "local-check", "local-train", "local-serve", "watch"),
        *("local-debug", "local-stop", "local-logs", "local-key", "ask", "track"),
        *("advise", "cloud-plan", "cloud-push", "cloud-stage", "cloud-train", "cloud-logs"),
        "cloud-cancel",
        *("cloud-download", "cloud-deploy", "cloud-rollback", "cloud-key", "cloud-status"),
        *("cloud-down", "cloud-smoke"),
        *("rehearse", "rehearsal-up", "rehearsal-down"),
        *("test", "check", "lock", "upgrade", "sbom", "audit"),
        *("bench", "bench-train", "bench-data", "bench-serve", "bench-estimate", "bench-gpu"),
        *("soak", "fuzz", "secrets"),
        *("help", "setup", "runtime", "cloud-setup", "clean"),
    ]

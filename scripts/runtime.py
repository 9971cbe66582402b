"""Docker or this machine's own Python, and GPU or CPU: each choice with its reason.

`auto` takes Docker where an engine answers with Compose v2 and BuildKit, else a virtual
environment; an explicit choice is taken or refused, never replaced.
"""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.errors import MachineError, UsageError

PROBE_SECONDS = 10

Probe = Callable[[list[str]], tuple[int, str]]
"""Runs a command; returns its exit code and output. A command that is not there gives 127."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why, for the line that says so."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def probe(command: list[str], seconds: float = PROBE_SECONDS) -> tuple[int, str]:
    """Run a short command and catch all that it says; 124 where it takes longer than `seconds`."""
    if not shutil.which(command[0]):
        return 127, f"{command[0]} is not installed"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within {seconds:g} s"
    return done.returncode, (done.stdout or done.stderr).strip()


def choose_runtime(asked: str, probe: Probe = probe) -> Choice:
    """`docker` or `host`; MachineError where docker is asked for in vain."""
    if asked not in ("auto", "docker", "host"):
        raise UsageError(f"RUNTIME is {asked!r}: use auto, docker or host.")
    if asked == "host":
        return Choice("host", "RUNTIME=host")
    lacking = missing_docker(probe)
    if asked == "docker":
        if lacking:
            raise MachineError(f"RUNTIME=docker, but {lacking}; mend that, or use RUNTIME=host.")
        return Choice("docker", "RUNTIME=docker")
    if lacking:
        return Choice("host", lacking)
    return Choice("docker", "the Docker engine answers")


def missing_docker(probe: Probe = probe) -> str:
    """What keeps Docker from being used, in a few words; empty where nothing does."""
    code, said = probe(["docker", "version", "--format", "{{.Server.Version}}"])
    if code == 127:
        return "docker is not installed"
    if code:
        return f"the Docker engine does not answer ({said.splitlines()[-1] if said else code})"
    code, said = probe(["docker", "compose", "version", "--short"])
    if code or not said.removeprefix("v")[:1].isdigit() or said.removeprefix("v").startswith("1."):
        return "Docker has no Compose v2 (the docker-compose-plugin package)"
    code, _ = probe(["docker", "buildx", "version"])
    if code:
        return "Docker has no buildx (the docker-buildx-plugin package)"
    return ""


def choose_device(environ: Mapping[str, str], runtime: str, probe: Probe = probe) -> Choice:
    """`cuda` or `cpu` for the images and the virtual environment."""
    asked = environ.get("HOMEPORT_DEVICE", "auto")
    if asked not in ("auto", "cpu", "cuda"):
        raise UsageError(f"HOMEPORT_DEVICE is {asked!r}: use auto, cpu or cuda.")
    if asked != "auto":
        return Choice(asked, f"HOMEPORT_DEVICE={asked}")
    code, said = probe(["nvidia-smi", "-L"])
    if code or "GPU" not in said:
        return Choice("cpu", "no NVIDIA GPU found")
    if runtime == "docker":
        code, runtimes = probe(["docker", "info", "--format", "{{json .Runtimes}}"])
        if code or "nvidia" not in runtimes:
            return Choice(
                "cpu", "Docker lacks the NVIDIA container toolkit, so it cannot use the GPU"
            )
    return Choice("cuda", said.splitlines()[0].partition(" (UUID")[0])

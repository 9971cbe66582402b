"""Show what training has tracked, in MLflow's own pages, until Ctrl-C."""

import argparse
import os
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from scripts.console import run_verb, say
from scripts.docker import IMAGE_USER, Compose, give, project
from scripts.environments import ensure
from scripts.errors import MachineError, UsageError
from scripts.runtime import Choice, choose_runtime, probe
from scripts.settings import CACHE, OUTPUTS, ROOT, environment, flag_default, without_secrets

STORE = OUTPUTS / "mlflow.db"
LOCK = ROOT / "images/track.txt"
VENV = CACHE / "track"
"""400 MB, of its own: MLflow's server wants older versions of what training and serving use."""
LOG = CACHE / "track.log"
LOG_TAIL = 15
START_SECONDS = 120
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # evaluation jobs, for which it would start three more processes
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make track", description="Show tracked runs in MLflow, on 127.0.0.1, until Ctrl-C."
    )
    parser.add_argument("--port", default=flag_default("TRACK_PORT", "5050"))
    parser.add_argument(
        "--runtime", default=flag_default("RUNTIME", "auto"), help="auto, docker or host"
    )
    arguments = parser.parse_args()
    port = read_port(arguments.port)
    if not STORE.is_file():
        raise UsageError("outputs/ has no tracked run yet; next: make local-train")
    need_port(port)
    runtime = choose_runtime(arguments.runtime)
    say(f"runtime: {runtime}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):  # the usual end
        with (in_docker if runtime.value == "docker" else on_host)(port) as server:
            say("MLflow shows the tracked runs until Ctrl-C:")
            print(address(port), flush=True)
            server.wait()
        raise MachineError(f"MLflow ended by itself; next: make track TRACK_PORT={port}")


def address(port: int) -> str:
    """The page of the newest run's experiment, as training; the front page is about agents."""
    with closing(sqlite3.connect(f"{STORE.as_uri()}?mode=ro", uri=True)) as store:
        newest = store.execute("SELECT experiment_id FROM runs ORDER BY start_time DESC").fetchone()
    page = f"/#/experiments/{newest[0]}/runs?workflowType=machine_learning" if newest else ""
    return f"http://127.0.0.1:{port}{page}"


def read_port(text: str) -> int:
    """A port number; UsageError for anything else."""
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise UsageError(f"TRACK_PORT is {text!r}: use a number from 1024 to 65535.")
    return int(text)


def need_port(port: int) -> None:
    """MachineError where another program holds the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise MachineError(
                f"port {port} is in use, perhaps by another make track; "
                f"next: make track TRACK_PORT={port + 1}"
            ) from None


@contextmanager
def in_docker(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow in its container, gone again when the block ends."""
    compose = Compose(
        {**environment(), "TRACK_PORT": str(port)}, Choice("cpu", "it shows pages only")
    )
    compose.build("track")
    if compose.as_root:
        give(OUTPUTS, IMAGE_USER)
    try:
        if compose.run("up", "--detach", "--wait", "track"):
            compose.run("logs", "--no-log-prefix", "--tail", "15", "track")
            raise MachineError("MLflow did not start; its last lines stand above.")
        yield subprocess.Popen(
            ["docker", "compose", "logs", "--no-log-prefix", "--follow", "--tail", "0", "track"],
            cwd=ROOT,
            env=compose.environ,
            stdout=subprocess.DEVNULL,
        )
    finally:
        compose.remove("track")
        if compose.as_root and not is_training():  # which gives it back at its own end
            give(OUTPUTS, 0)


def is_training() -> bool:
    """Whether a training of this checkout runs in its container."""
    labels = ("homeport.role=train", f"com.docker.compose.project={project()}")
    _, found = probe(["docker", "ps", "-q", *(f"--filter=label={label}" for label in labels)])
    return bool(found)


@contextmanager
def on_host(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow as a process of this machine, ended when the block ends."""
    python = ensure("MLflow", LOCK, VENV)
    with LOG.open("wb") as log:
        server = subprocess.Popen(
            [
                *(str(python), "-m", "mlflow", "server", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{STORE}"),
            ],
            cwd=ROOT,
            env={**without_secrets(environment()), **SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it has children, which end with their group
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                say("\n".join(LOG.read_text(errors="replace").splitlines()[-LOG_TAIL:]))
                raise MachineError("MLflow did not start; its last lines stand above.")
            time.sleep(0.2)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def answers(port: int) -> bool:
    """Whether MLflow answers there by now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    run_verb(main)

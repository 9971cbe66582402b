"""The local Azure, started and stopped: containers of docker-compose.yml, or a process here.

What the cloud verbs need to reach it stands in `.cache/rehearsal/env`; with those variables set,
they all work against it. Its state is forgotten when it stops; the images pushed to it stay, and so
does the base model of what it trains itself.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import setup
from scripts.console import say
from scripts.docker import IMAGE_USER, Compose, drop_networks, give, project
from scripts.errors import MachineError
from scripts.host import Host, started
from scripts.runtime import Choice, probe
from scripts.settings import CACHE, ROOT, relative

FOLDER = CACHE / "rehearsal"
IMAGES = CACHE / "rehearsal-images"
BASES = CACHE / "rehearsal-bases"
"""The tiny base model, which the routes of Azure's own training start from here."""
ENV = FOLDER / "env"
STATE = FOLDER / "process.json"
LOG = CACHE / "rehearsal.log"
SOCKET = Path("/var/run/docker.sock")
START_SECONDS = 120
STOP_SECONDS = 30
SERVICES = ("azure", "registry")
ENDED = ("Completed", "Failed", "Canceled", "succeeded", "failed", "cancelled")
"""States of jobs: Azure ML's words, then Azure OpenAI's."""
REALLY = "really"
"""In the name of what is trained and served for real where all else is a stand-in."""


class LocalAzure:
    """The local Azure of this checkout; one at a time."""

    def __init__(self, runtime: Compose | Host, *, quick: bool = False) -> None:
        """With `quick` jobs and deployments are stand-ins of a second, but for what has REALLY in
        its name; only without Docker."""
        self.runtime = runtime
        self._flags = ["--quick", "--really", REALLY] if quick else []

    def start(self) -> None:
        """Start it empty and wait until it answers; MachineError with its last lines otherwise."""
        self.stop()
        self.forget()
        FOLDER.mkdir(parents=True)
        IMAGES.mkdir(exist_ok=True)
        self._bring_bases()
        if isinstance(self.runtime, Compose):
            self._start_containers(self.runtime)
        else:
            self._start_process()
        say(f"local Azure: {self.control()} (rehearsal, not Azure; jobs run in {self._mode()})")

    def _mode(self) -> str:
        if isinstance(self.runtime, Compose):
            return "containers"
        return "stand-ins of a second" if self._flags else "processes of this machine"

    def _bring_bases(self) -> None:
        """Bases that were made here before need not be made again, which takes a minute."""
        BASES.mkdir(exist_ok=True)
        for made in CACHE.glob("tiny-*"):
            if (made / "config.json").is_file() and not (BASES / made.name).exists():
                shutil.copytree(made, BASES / made.name)

    def _start_containers(self, compose: Compose) -> None:
        compose.build("azure")
        if compose.as_root:
            give(FOLDER, IMAGE_USER)
            give(IMAGES, IMAGE_USER)
            give(BASES, IMAGE_USER)
        if compose.run("up", "--detach", "--wait", "azure", extra=self._variables()):
            compose.run("logs", "--no-log-prefix", "--tail", "15", *SERVICES)
            self.stop()
            raise MachineError("the local Azure did not start; its last lines stand above.")

    def _variables(self) -> dict[str, str]:
        group = SOCKET.stat().st_gid if SOCKET.exists() else 0
        return {
            "HOMEPORT_REHEARSAL": str(FOLDER),
            "HOMEPORT_REHEARSAL_BASES": str(BASES),
            "HOMEPORT_DOCKER_GID": str(group),
        }

    def _start_process(self) -> None:
        command = [
            *(str(setup.python()), "-m", "emulator", "--mode", "host"),
            *("--folder", str(FOLDER), "--cache", str(BASES), *self._flags),
        ]
        # before it is waited for: npm takes half a minute, on a busy machine minutes
        if subprocess.run([*command, "--install"], cwd=ROOT, stdin=subprocess.DEVNULL).returncode:
            raise MachineError("the local Azure could not be installed; its reason stands above.")
        with LOG.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        STATE.write_text(json.dumps({"pid": process.pid, "started": started(process.pid)}))
        deadline = time.monotonic() + START_SECONDS
        while not (ENV.is_file() and b"\nready " in b"\n" + LOG.read_bytes()):
            if process.poll() is not None:
                say("\n".join(LOG.read_text(errors="replace").splitlines()[-15:]))
                raise MachineError("the local Azure did not start; its last lines stand above.")
            if time.monotonic() > deadline:
                self.stop()
                process.wait()
                raise MachineError(
                    f"the local Azure did not answer in {START_SECONDS} s; its log: "
                    f"{relative(LOG)}. Give the same command again when this machine is less busy."
                )
            time.sleep(0.2)

    def running(self) -> bool:
        """Whether a local Azure of this checkout answers."""
        try:
            return bool(self.ask("health"))
        except (OSError, MachineError):
            return False

    def control(self) -> str:
        """Address of its control routes; MachineError where none was started."""
        return self.variables()["HOMEPORT_REHEARSAL_CONTROL"]

    def variables(self) -> dict[str, str]:
        """What a cloud verb needs in its environment; MachineError where none was started."""
        if not ENV.is_file():
            raise MachineError("no local Azure is running: make rehearsal-up")
        # each a line that a shell reads, since the checkout's path may have spaces
        words = shlex.split(ENV.read_text())
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def ask(self, what: str) -> Any:
        """GET a control route, as JSON."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.control()}/{what}", timeout=10) as reply:
            return json.loads(reply.read() or b"null")

    def tell(self, method: str, what: str, body: Mapping[str, object] | None = None) -> None:
        """POST or DELETE a control route."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = json.dumps(body).encode() if body is not None else None
        asked = urllib.request.Request(f"{self.control()}/{what}", data, method=method)  # noqa: S310
        opener.open(asked, timeout=10).close()

    def stop(self) -> bool:
        """End it and all that runs in it; False where none was running."""
        was = self._stop_process()
        if isinstance(self.runtime, Compose):
            was = bool(self.runtime.up(SERVICES)) or was
            self.runtime.remove(*SERVICES)
            if left := containers():  # of a local Azure that was killed
                probe(["docker", "rm", "--force", *left])
                drop_networks()
            if self.runtime.as_root and FOLDER.is_dir():
                give(FOLDER, 0)
                give(IMAGES, 0)
                give(BASES, 0)
        return was

    def forget(self) -> None:
        """Remove all that was in it, but for the pushed images."""
        if FOLDER.is_dir():
            shutil.rmtree(FOLDER)

    def _stop_process(self) -> bool:
        try:
            state = json.loads(STATE.read_text())
        except FileNotFoundError:
            return False
        pid = int(state["pid"])
        if started(pid) != state["started"]:
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while started(pid) == state["started"]:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.1)
        return True


def network() -> str:
    """The Docker network of the local Azure, its jobs and deployments; it has no way out."""
    return f"{project()}_rehearsal"


def containers() -> list[str]:
    """Containers of jobs and deployments, and of the local Azure itself."""
    _, found = probe(["docker", "ps", "--all", "--quiet", f"--filter=network={network()}"])
    return found.split()


def is_running(row: Mapping[str, Any]) -> bool:
    """Whether a row of `resources` is a job that has not ended, in Azure ML or in Azure OpenAI."""
    return "/jobs/" in row["id"] and row["state"] not in ENDED


def shell_line() -> str:
    """What makes a shell use the local Azure."""
    return f"set -a; . {relative(ENV)}; set +a"


def local_azure(
    environ: Mapping[str, str],
    runtime: Choice,
    device: Choice,
    *,
    quick: bool = False,
) -> LocalAzure:
    """The local Azure in the chosen runtime; `quick` as LocalAzure has it."""
    made = (Compose if runtime.value == "docker" else Host)(environ, device)
    return LocalAzure(made, quick=quick)

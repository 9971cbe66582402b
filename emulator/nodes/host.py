"""Jobs and deployments as processes of this machine, with the cloud's commands and environment.

    nodes = HostNodes(folder)
    running = nodes.start(Program(name="job1-0", image="…/homeport/train@sha256:…", command="…"))

It shows everything but the image: the process runs on this Python's environment and this checkout,
whatever the image's digest, and it sees this machine's files. An image of role `serve` without a
command is `python -m serve` on a free port; no other image runs without a command.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from emulator.nodes import Mount, NodeError, Program

CHECKOUT = Path(__file__).resolve().parents[2]
ROLE = re.compile(r"(?:.*/)?(train|serve)(?:[@:].*)?")
"""The image's role is the last part of its repository's name: `<registry>/homeport/serve@…`."""
KEPT = ("LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
"""Variables of this process that say what the machine is like; nothing else is handed on, since a
node of Azure knows nothing of the caller's environment."""
AS_IN_THE_IMAGES = {
    "HOME": "/tmp",  # noqa: S108 - images/Dockerfile says so
    "USER": "homeport",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class HostNodes:
    """Runs programs here; `folder` is for their logs."""

    mode = "host"

    def __init__(self, folder: Path) -> None:
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._running: dict[str, HostProcess] = {}
        self._closed = False

    def where(self, mount: Mount) -> str:
        """The folder itself; a process here sees no mounts."""
        return str(mount.folder)

    def pull(self, image: str) -> None:
        """Nothing to do: there are no images in this mode."""

    def start(self, program: Program) -> "HostProcess":
        """Start it in a process group of its own."""
        port = _free_port() if program.port else None
        environment = {
            **{name: os.environ[name] for name in KEPT if name in os.environ},
            **AS_IN_THE_IMAGES,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(CHECKOUT),
            "TMPDIR": str(self._folder / "tmp"),  # a node's disk is its own
            **program.environment,
        }
        if port:
            environment |= {"SERVE_HOST": "127.0.0.1", "SERVE_PORT": str(port)}
        command = program.command or _command_of(program.image)
        log = self._folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', program.name)}.log"
        with self._lock:
            if self._closed:
                raise NodeError("This machine is being closed down.")
            before = self._running.get(program.name)
            if before and before.exit_code() is None:
                raise NodeError(f"A program of the name {program.name} runs already.")
            try:
                with log.open("wb") as output:
                    process = subprocess.Popen(
                        ["/bin/bash", "-c", command],
                        cwd=program.folder or self._folder,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
            except OSError as error:
                raise NodeError(f"{program.name} could not be started: {error}.") from error
            running = HostProcess(process, log, port)
            self._running[program.name] = running
            return running

    def close(self) -> None:
        """Kill all that still runs."""
        with self._lock:
            self._closed = True
            left = list(self._running.values())
        for running in left:
            running.stop(0)


class HostProcess:
    """One process group."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int | None) -> None:
        self._process = process
        self._log = log
        self._port = port
        self._ended = False

    def address(self) -> tuple[str, int]:
        if self._port is None:
            raise NodeError("The program was started without a port.")
        return "127.0.0.1", self._port

    def log(self) -> bytes:
        return self._log.read_bytes() if self._log.exists() else b""

    def exit_code(self) -> int | None:
        """Of the bash that ran it; 128 + N after signal N, as a container says it."""
        code = self._process.poll()
        if code is None:
            return None
        self._end_group()
        return 128 - code if code < 0 else code

    def wait(self, seconds: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.exit_code()

    def stop(self, grace: float) -> None:
        if grace > 0 and self.exit_code() is None:
            self._signal(signal.SIGTERM)
            self.wait(grace)
        self._end_group()
        self._process.wait()

    def remove(self) -> None:
        self._log.unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _end_group(self) -> None:
        """Kill what is left of the group, once: later its id may be another's.

        A container, too, ends with its first process.
        """
        if not self._ended:
            self._ended = True
            self._signal(signal.SIGKILL)


def _command_of(image: str) -> str:
    role = ROLE.fullmatch(image)
    if role and role[1] == "serve":
        return f"exec {shlex.quote(sys.executable)} -m serve"
    raise NodeError(
        f"{image} has no command here: without containers only an image of the repository "
        "…/serve runs by itself."
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

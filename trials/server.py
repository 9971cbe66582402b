"""A server to try: `python -m serve` of this checkout, on a free port of 127.0.0.1.

    with started(model, folder) as server:
        server.url; server.pid; server.engine(); server.memory(); server.log()

It has a process group of its own, none of the caller's settings, and ends with the block.
"""

import http.client
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.serve_sides import ENGINE_PROCESS, environment
from bench.serve_watch import Watched, command_line, memory_bytes
from bench.table import ChildError

HOST = "127.0.0.1"
COMMAND = (sys.executable, "-m", "serve")
START_SECONDS = 180.0
"""Longest until the weights are loaded; a model that is converted first takes a while."""


class Server:
    """One that is running, or was."""

    def __init__(self, watched: Watched, port: int) -> None:
        self.watched = watched
        self.process = watched.process
        self.port = port
        self.url = f"http://{HOST}:{port}"

    @property
    def pid(self) -> int:
        """Of the process that was started: gunicorn's master, which gets the signals."""
        return self.process.pid

    def worker(self) -> int:
        """Of the process that handles requests."""
        return self._only(engine=False)

    def engine(self) -> int:
        """Of the process that has the weights; LookupError while there is none."""
        return self._only(engine=True)

    def memory(self) -> int:
        """Bytes of it and its descendants, what they share counted once."""
        return memory_bytes(self.watched.tree())

    def log(self) -> str:
        return self.watched.log.read_text(encoding="utf-8", errors="replace")

    def status(self, path: str, seconds: float = 5.0) -> int:
        """What GET answers; 0 where nothing does."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=seconds)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Until the next request will be answered; ChildError where it ends or takes longer."""
        end = time.monotonic() + seconds
        while self.status("/readyz") != 200:
            if self.process.poll() is not None:
                words = self.watched.last_words()
                raise ChildError(f"the server ended with {self.process.returncode}: {words}")
            if time.monotonic() > end:
                raise ChildError(
                    f"not ready after {seconds:.0f} s; its log ends: {self.watched.last_words()}"
                )
            time.sleep(0.1)

    def _only(self, *, engine: bool) -> int:
        """The one process below gunicorn's that is the engine, or is not."""
        for pid in self.watched.tree()[1:]:
            line = command_line(pid)
            if line and (ENGINE_PROCESS in line) is engine:
                return pid
        raise LookupError("no such process now")


def environment_of(model: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What the server is started with: the CPU, no hub, none of the caller's own settings."""
    return environment({"SERVE_MODEL": str(model.absolute()), **environ})


@contextmanager
def started(
    model: Path, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that answers, its log in folder/server.log."""
    with launched(model, folder, environ) as server:
        server.wait()
        yield server


@contextmanager
def launched(
    model: Path,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    argv: Sequence[str] = COMMAND,
) -> Iterator[Server]:
    """The same, without waiting: it may be about to refuse to start."""
    given = dict(environ or {})
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = int(free.getsockname()[1])
    env = environment_of(model, {"SERVE_PORT": str(port), **given})
    port = int(env["SERVE_PORT"])
    folder.mkdir(parents=True, exist_ok=True)
    with Watched(argv, env, folder / "server.log") as watched:
        yield Server(watched, port)

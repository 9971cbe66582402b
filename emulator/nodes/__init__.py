"""Where jobs and deployments run: containers of the pushed images (docker.py), or processes of this
machine with the same commands and environment (host.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class NodeError(Exception):
    """The node could not start it: image not found, name taken, engine gone. One sentence."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine, and where the process sees it (a container's path)."""

    folder: Path
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process to run, as Azure would: an image and, unless it brings its own, a command line.

    `command` and the values of `environment` name mounted folders as `Nodes.where` gives them.
    """

    name: str
    """Of the container or process; unique while it runs."""
    image: str
    """`<registry>.azurecr.io/<repository>@sha256:<digest>`."""
    command: str | None = None
    """A bash command line; None runs what the image says."""
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    port: int | None = None
    """Port that it serves on, if it serves."""
    shm_size: str = "2g"
    folder: str | None = None
    """Working directory, as `Nodes.where` gives it; None is the image's own."""
    beside: str | None = None
    """Name of a running program whose network it shares: 127.0.0.1 is the same for both."""


class Running(Protocol):
    """A process that was started."""

    def address(self) -> tuple[str, int]:
        """Host and port at which this emulator reaches the program's port."""

    def log(self) -> bytes:
        """All that it has written to stdout and stderr so far, also after its end."""

    def exit_code(self) -> int | None:
        """None while it runs."""

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; its exit code, or None where it still runs after `seconds`."""

    def stop(self, grace: float) -> None:
        """SIGTERM to all of it, SIGKILL after `grace` seconds; returns when it has ended."""

    def remove(self) -> None:
        """Take away what is left of it (the container); its log is gone after."""


class Nodes(Protocol):
    """A place to run programs."""

    mode: str
    """`docker` or `host`."""

    def where(self, mount: Mount) -> str:
        """The path by which the process sees the mounted folder."""

    def pull(self, image: str) -> None:
        """Have the image here; NodeError where the registry does not hold it."""

    def start(self, program: Program) -> Running:
        """Start it; NodeError where that is not possible."""

    def close(self) -> None:
        """End all that still runs here, take away what is left of it, and start nothing more."""

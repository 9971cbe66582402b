"""Looks at this machine and at the workspace, for the checks. The one part of doctor that does."""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.doctor import PROBE_SECONDS
from scripts.errors import CloudError, UsageError
from scripts.settings import CACHE, OUTPUTS, ROOT, environment
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud

MOST_FILES = 20_000
"""Of outputs/ and .cache/ that are looked at."""


@dataclass(slots=False)
class Here:
    """This machine; tests put their own answers in its place."""

    environ: Mapping[str, str]
    recipe: Recipe
    root: Path = ROOT
    folders: tuple[Path, ...] = (OUTPUTS, CACHE)
    """What the verbs write to."""
    _said: dict[tuple[str, ...], tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe) -> "Here":
        return cls(environment(), recipe)

    def run(self, *command: str) -> tuple[int, str]:
        """Exit code and output; 127 where there is no such command, 124 where it is too slow."""
        if command not in self._said:
            self._said[command] = self._run(command)
        return self._said[command]

    def _run(self, command: Sequence[str]) -> tuple[int, str]:
        if not shutil.which(command[0]):
            return 127, f"{command[0]} is not installed"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            return 124, f"{command[0]} did not answer within {PROBE_SECONDS:g} s"
        return done.returncode, (done.stdout or done.stderr).strip()

    @property
    def system(self) -> str:
        """Linux, Darwin or Windows."""
        return platform.system()

    @property
    def in_wsl(self) -> bool:
        return "microsoft" in platform.release().lower()

    @property
    def python(self) -> tuple[int, int, int]:
        return sys.version_info[:3]

    @property
    def user(self) -> int:
        return os.getuid()

    def free_disk(self, path: Path) -> int:
        """Bytes on the disk that holds `path` or, where it is not there, its nearest parent."""
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free

    def memory(self) -> tuple[int, int] | None:
        """Bytes in all and free; None where the system does not say."""
        try:
            lines = Path("/proc/meminfo").read_text().splitlines()
        except OSError:
            return None
        values = dict(line.split(":", 1) for line in lines)
        return tuple(int(values[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))  # type: ignore[return-value] # two keys, two numbers

    def port_is_free(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
            return True

    def files(self) -> Iterator[tuple[Path, int]]:
        """The first of the files that the verbs have written, and whose they are."""
        count = 0
        for folder in self.folders:
            for path in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    yield path, path.lstat().st_uid
                count += 1
                if count >= MOST_FILES:
                    return

    def text(self, path: Path) -> bytes:
        return path.read_bytes()

    @cached_property
    def account(self) -> "tuple[Cloud | None, str]":
        """The workspace; else None and why no one is asked there."""
        from scripts.cloud_plan import reason_offline

        if why := reason_offline(False):
            return None, why
        from scripts.azure.client import connect

        try:
            return connect(), ""
        except (CloudError, UsageError) as error:
            return None, str(error)

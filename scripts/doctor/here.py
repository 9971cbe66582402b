"""Looks at this machine and at the workspace, for the checks. The one part of doctor that does."""

import contextlib
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.doctor import PROBE_SECONDS
from scripts.errors import CloudError, UsageError
from scripts.models import memory
from scripts.runtime import probe
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
            self._said[command] = probe(list(command), PROBE_SECONDS)
        return self._said[command]

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
        return memory()

    def port_is_free(self, port: int) -> bool:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
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

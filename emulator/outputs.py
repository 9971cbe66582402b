"""What a job reads and writes, between storage and the folders that its processes see.

Inputs are downloaded before it starts, whatever their mode: a mount is a folder of copies. An
output of mode ReadWriteMount is a folder that holds at the start what lies in storage already, and
whose finished files are copied there while the job runs; one of mode Upload is copied when the job
has succeeded, and not otherwise, as the service does it. Links are not copied, as its mounts have
none. Other than there, a file counts as finished when it has rested for one look, since nobody here
sees it being closed.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.azure import Azure
from emulator.nodes import Mount
from emulator.storage import locate

ROOT = "/mnt/azureml/cr/j"
"""Where a node of the service keeps a job's folders."""
Stamp = tuple[int, int]
"""Size in bytes and time of the last change in ns."""


class DataError(Exception):
    """An input cannot be had. One sentence."""


@dataclass(frozen=True, slots=True)
class Given:
    """An input or output as the command gets it."""

    mount: Mount | None
    """None for a literal, and for what is handed over as its URI."""
    value: str
    """The literal or URI, else the path below the mount (empty: the mount itself)."""


def job_mount(job: str, folder: Path, path: str, *, read_only: bool = False) -> Mount:
    return Mount(folder, f"{ROOT}/{job}/{path}", read_only=read_only)


def fetch_input(azure: Azure, job: str, name: str, given: Mapping[str, Any], to: Path) -> Given:
    """Have an input here; DataError where there is nothing at its address."""
    if str(given["jobInputType"]).lower() == "literal":
        return Given(None, str(given["value"]))
    uri = str(given["uri"])
    if str(given.get("mode") or "").lower() == "direct":
        return Given(None, uri)
    to.mkdir(parents=True)
    try:
        container, prefix = locate(uri, azure.settings, azure.store)
        files = azure.storage.download(container, prefix, to)
    except KeyError:
        files = []
    if not files:
        raise DataError(f"Input {name} was not found: there is nothing at {uri}.")
    mount = job_mount(job, to, f"cap/data-capability/wd/INPUT_{name}", read_only=True)
    is_file = str(given["jobInputType"]).lower() == "uri_file"
    if is_file and len(files) != 1:
        raise DataError(f"Input {name} is a uri_file, but {uri} holds {len(files)} files.")
    return Given(mount, files[0].relative_to(to).as_posix() if is_file else "")


def fetch_code(azure: Azure, job: str, code: str, to: Path) -> Mount:
    """Have the code of the job in its working directory."""
    to.mkdir(parents=True)
    container, prefix = locate(code, azure.settings, azure.store)
    if not azure.storage.download(container, prefix, to):
        raise DataError(f"The code {code} has no files.")
    return job_mount(job, to, "exe/wd")


@dataclass(slots=True)
class Output:
    """A folder of this machine that storage is to have."""

    azure: Azure
    name: str
    mode: str
    container: str
    prefix: str
    """Of its blobs, without a slash at the end."""
    folder: Path
    _seen: dict[str, Stamp] = field(default_factory=dict)
    _stored: dict[str, Stamp] = field(default_factory=dict)

    @property
    def mounted(self) -> bool:
        return self.mode.lower() == "readwritemount"

    def prepare(self) -> None:
        """Make the folder, with what lies in storage where it is a mount."""
        self.folder.mkdir(parents=True)
        if self.mounted:
            self.azure.storage.download(self.container, self.prefix, self.folder)
            self._seen = self._stored = dict(_files(self.folder))

    def look(self, *, final: bool = False) -> None:
        """Copy what has changed and rests; `final`: all that has changed. Remove what is gone."""
        now = dict(_files(self.folder))
        for name, stamp in now.items():
            rests = final or self._seen.get(name) == stamp
            if rests and self._stored.get(name) != stamp and self._copy(name):
                self._stored[name] = stamp
        for name in set(self._stored) - set(now):
            self.azure.storage.delete(self.container, f"{self.prefix}/{name}")
            del self._stored[name]
        self._seen = now

    def _copy(self, name: str) -> bool:
        """False where the file has gone meanwhile."""
        try:
            with (self.folder / name).open("rb") as file:
                self.azure.storage.write(self.container, f"{self.prefix}/{name}", file)
        except FileNotFoundError:
            return False
        return True


def outputs_of(azure: Azure, properties: Mapping[str, Any], folder: Path) -> list[Output]:
    """The outputs that are folders of the job; `default` and those of mode Direct are not."""
    found = []
    for name, given in properties["outputs"].items():
        mode = str(given.get("mode") or "ReadWriteMount")
        if name == "default" or mode.lower() == "direct":
            continue
        container, prefix = locate(str(given["uri"]), azure.settings, azure.store)
        output = Output(azure, name, mode, container, prefix.rstrip("/"), folder / name)
        found.append(output)
    return found


def _files(folder: Path) -> Iterator[tuple[str, Stamp]]:
    # os.walk passes over a folder that goes meanwhile, as rglob does not: the job is at work here
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    for path in sorted(found):
        try:
            if path.is_symlink() or not path.is_file():
                continue
            about = path.stat()
        except FileNotFoundError:
            continue
        yield path.relative_to(folder).as_posix(), (about.st_size, about.st_mtime_ns)

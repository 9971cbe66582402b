"""Where a secret might come out: files, images with all their layers, containers, processes.

    found = in_folder(Path("outputs"), finder)          # Searched: files, bytes, findings
    found = in_image("homeport-serve:cpu", finder)      # docker save, layer by layer
    with Watch() as watch: ...                          # /proc and docker inspect, all the time
    watch.processes(finder); watch.containers(finder)

A finding says which secret stands where and how it is written, never what it is.
"""

import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from trials.secrets_markers import Finder

GZIP, ZIP, TAR = b"\x1f\x8b", b"PK\x03\x04", b"ustar"
LOOK_SECONDS = 0.02
"""Between two looks at all processes; a `docker ps` lives for longer."""
INSPECT_SECONDS = 0.5
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret where it should not be, unless somebody says why it may."""

    secret: str
    where: str
    form: str


@dataclass(slots=True)
class Searched:
    """What one place had."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    size: int = 0

    def look(self, finder: Finder, stream: IO[bytes], where: str) -> None:
        """Search one stream, and what is packed in it."""
        self.files += 1
        head = stream.read(1024)
        if head.startswith(ZIP):
            whole = head + stream.read()
            self._note(finder, io.BytesIO(whole), where)
            broken = (zipfile.BadZipFile, NotImplementedError, RuntimeError)
            with contextlib.suppress(*broken), zipfile.ZipFile(io.BytesIO(whole)) as packed:
                for name in packed.namelist():
                    with packed.open(name) as member:
                        self.look(finder, member, f"{where}!{name}")
            return
        rest = cast("IO[bytes]", _Joined(head, stream))
        if head.startswith(GZIP):
            with contextlib.suppress(OSError, EOFError), gzip.open(rest) as plain:
                self.look(finder, plain, where)  # type: ignore[arg-type]
        elif head[257:262] == TAR:
            self.look_into_tar(finder, rest, where)
        else:
            self._note(finder, rest, where)

    def look_into_tar(self, finder: Finder, stream: IO[bytes], where: str) -> None:
        """Search names, links, extended headers and contents of an archive, as it comes."""
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as tar:
            for member in tar:
                papers = f"{member.name}\n{member.linkname}\n{member.pax_headers}"
                self._note(finder, io.BytesIO(papers.encode(errors="replace")), where)
                content = tar.extractfile(member) if member.isfile() else None
                if content:
                    self.look(finder, content, f"{where}!{member.name}")
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them

    def _note(self, finder: Finder, stream: IO[bytes], where: str) -> None:
        found, size = finder.search(stream)
        self.size += size
        self.findings += [Finding(name, where, form) for name, form in found]


class _Joined(io.RawIOBase):
    """A stream whose beginning was read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            head, self._head = self._head, b""
            return head + self._rest.read()
        head, self._head = self._head[:size], self._head[size:]
        return head


def in_folder(folder: Path, finder: Finder, *, skip: tuple[str, ...] = ()) -> Searched:
    """All files below a folder, their names and where links point to; not the names in `skip`."""
    searched = Searched()
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skip)
        for name in sorted([*files, *folders]):
            path = Path(parent, name)
            where = str(path.relative_to(folder))
            target = os.readlink(path) if path.is_symlink() else ""
            searched.findings += [
                Finding(secret, where, f"{form}, in a name")
                for secret, form in finder.search_bytes(f"{where}\n{target}".encode())
            ]
            if path.is_symlink() or not path.is_file() or name in skip:
                continue
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                searched.look(finder, stream, where)
    return searched


def history_of(image: str, finder: Finder) -> Searched:
    """What an image says of itself, in a second: config, labels, variables, how it was built."""
    searched = Searched()
    for asked in ("image inspect", "history --no-trunc"):
        command = ["docker", *asked.split(), image]
        done = subprocess.run(command, capture_output=True, check=True)
        searched.look(finder, io.BytesIO(done.stdout), f"docker {asked}")
    return searched


def in_image(image: str, finder: Finder) -> Searched:
    """All layers of an image, its config and its history, as `docker save` gives them."""
    searched = Searched()
    with subprocess.Popen(
        ["docker", "save", image],  # noqa: S607 - docker from PATH, as the verbs take it
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as engine:
        assert engine.stdout  # noqa: S101 - narrows a type
        searched.look_into_tar(finder, engine.stdout, image)
    if engine.returncode or searched.files < 3:  # a manifest, a config and a layer
        raise OSError(f"docker save {image} ended with {engine.returncode}.")
    return searched


def images() -> list[str]:
    """The images of this project that are built here."""
    command = ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", "homeport-*"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True)
        return [line for line in done.stdout.split() if "<none>" not in line]
    return []


class Watch:
    """Remembers the command line and environment of every process that starts while it looks.

    Containers' processes are among them, since their engine runs here; and the engine is asked for
    what it knows of each container, whose variables stand there for as long as it exists.
    """

    def __init__(self) -> None:
        self._began = _began(PROC / "self")
        self._entries: dict[tuple[str, bytes], None] = {}
        self._seen: set[tuple[str, int, str]] = set()
        self._containers: dict[str, bytes] = {}
        self._stop = threading.Event()
        watched = [self._watch, self._inspect] if shutil.which("docker") else [self._watch]
        self._threads = [threading.Thread(target=one, daemon=True) for one in watched]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def processes(self, finder: Finder) -> Searched:
        """What there was to see of processes."""
        searched = Searched(files=len(self._seen))
        for where, entry in self._entries:
            searched.size += len(entry)
            found = finder.search_bytes(entry)
            searched.findings += [Finding(secret, where, form) for secret, form in found]
        return searched

    def containers(self, finder: Finder) -> Searched:
        """What the engine told of containers."""
        searched = Searched(files=len(self._containers))
        for told in self._containers.values():
            searched.size += len(told)
            image = json.loads(told)[0]["Config"]["Image"]
            found = finder.search_bytes(told)
            searched.findings += [Finding(secret, image, form) for secret, form in found]
        return searched

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            for process in PROC.iterdir():
                if process.name.isdigit():
                    with contextlib.suppress(OSError):
                        self._look(process)

    def _look(self, process: Path) -> None:
        line = (process / "cmdline").read_bytes()
        if not line:  # of the kernel, or about to be gone
            return
        began, name = _began(process), label(line)
        if began < self._began or (process.name, began, name) in self._seen:
            return
        self._seen.add((process.name, began, name))  # with its name, which changes in exec
        for argument in line.split(b"\0"):
            self._entries[(f"{name}: its command line", argument)] = None
        for entry in (process / "environ").read_bytes().split(b"\0"):
            variable = entry.partition(b"=")[0].decode(errors="replace")
            self._entries[(f"{name}: variable {variable}", entry)] = None

    def _inspect(self) -> None:
        while not self._stop.wait(INSPECT_SECONDS):
            listed = ["docker", "ps", "--all", "--quiet", "--no-trunc"]
            done = subprocess.run(listed, capture_output=True, text=True)
            for container in set(done.stdout.split()) - self._containers.keys():
                asked = ["docker", "inspect", container]
                told = subprocess.run(asked, capture_output=True)
                if not told.returncode:
                    self._containers[container] = told.stdout


def _began(process: Path) -> int:
    """When a process began, in ticks since the machine did."""
    return int((process / "stat").read_text().rpartition(")")[2].split()[19])


def label(line: bytes) -> str:
    """A process by its program and module: `python -m scripts.local_train`, `make`, `docker`."""
    words = [word.decode(errors="replace") for word in line.split(b"\0") if word]
    program = Path(words[0]).name
    if "-m" in words[:-1]:
        return f"{program} -m {words[words.index('-m') + 1]}"
    if program.startswith("python") and len(words) > 1:
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        return f"{program} {Path(script).name}" if script.endswith(".py") else program
    if program == "docker":
        verbs = [word for word in words[1:] if not word.startswith("-")][:3]
        return f"docker {' '.join(verbs)}"
    return program

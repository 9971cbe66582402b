"""An image from `docker save` to a registry, layer by layer, with no layer in memory.

    digest = push_saved(registry, image_id, "train-0123456789ab", size, folder)

The stream is read once. Each layer is hashed on its way to a file; one that the registry lacks is
compressed on all processors and uploaded while the next is read. What a layer is when compressed is
remembered (layers.json), so it is compressed once per machine. Both layouts of `docker save`
are read: plain layers (the classic store) are compressed, gzip ones (the containerd store) go as
they are.
"""

import hashlib
import json
import os
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scripts.azure.registry import MANIFEST, Registry
from scripts.console import say
from scripts.errors import MachineError
from scripts.settings import GIGABYTE

MEGABYTE = 1_000_000
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
BLOCK = 4 * 1024 * 1024
"""Bytes that are compressed on their own, so that the result does not depend on the processors."""
LEVEL = 4
"""Half the time of level 6 for 5 % more bytes, measured on the layers of our images."""
GZIP_FORMAT = 16 + zlib.MAX_WBITS
"""Header without name and time."""
UPLOADS = 3
"""Layers on their way at once, as many as docker push takes."""
SAY_SECONDS = 10
PLATFORM = "amd64"
"""All machines of Azure ML."""


@dataclass(frozen=True, slots=True)
class Blob:
    """What a manifest says of a layer."""

    digest: str
    size: int
    """Compressed bytes."""
    diff_id: str = ""
    """Hash of the plain layer; empty where it came compressed."""


def push_saved(registry: Registry, image: str, tag: str, size: int, folder: Path) -> str:
    """Push the engine's `image` of `size` bytes; the digest of its manifest.

    `folder` keeps layers.json, and pieces while this runs. MachineError where the disk is too small
    or the engine does not give the image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise MachineError(
            f"pushing needs {size / GIGABYTE:.1f} GB in {folder} for a while; it has "
            f"{free / GIGABYTE:.1f} GB free: docker system prune, or make clean"
        )
    memory = folder / "layers.json"
    known = _known(memory)
    try:
        with tempfile.TemporaryDirectory(prefix="push-", dir=folder) as pieces:
            push = _Push(registry, Path(pieces), known)
            try:
                _stream(image, push)
            finally:
                push.end()
            return push.finish(tag)
    finally:
        memory.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def _stream(image: str, push: "_Push") -> None:
    command = ["docker", "save", image]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as engine:
        assert engine.stdout and engine.stderr  # noqa: S101 - narrows a type
        try:
            with tarfile.open(fileobj=engine.stdout, mode="r|", bufsize=1 << 20) as tar:
                push.read(tar)
        except (tarfile.ReadError, EOFError) as error:
            said = engine.stderr.read().decode(errors="replace").strip()
            raise MachineError(f"the engine does not give {image}: {said or error}") from None
        except BaseException:
            engine.kill()
            raise


class _Push:
    """One image on its way."""

    def __init__(self, registry: Registry, folder: Path, known: dict[str, dict[str, Any]]) -> None:
        self.registry = registry
        self.folder = folder
        self.known = known
        self.blobs: dict[str, Blob] = {}
        """By the file's name in the stream."""
        self.links: dict[str, str] = {}
        self.documents: dict[str, bytes] = {}
        self.uploads: list[Future[None]] = []
        self.pool = ThreadPoolExecutor(UPLOADS, "upload")
        self.progress = _Progress()

    def read(self, tar: tarfile.TarFile) -> None:
        """Take all that the stream has, and wait until the layers are uploaded."""
        for member in tar:
            if member.issym():
                target = posixpath.join(posixpath.dirname(member.name), member.linkname)
                self.links[member.name] = posixpath.normpath(target)
            elif member.isfile():
                file = tar.extractfile(member)
                assert file  # noqa: S101 - a file has content
                head = file.read(512)
                if _is_layer(member.name, head):
                    self._layer(member.name, head, file)
                else:
                    self.documents[member.name] = head + file.read()
        for upload in self.uploads:
            upload.result()

    def end(self) -> None:
        """Wait for what is under way; after a failure no longer than for the next piece."""
        self.progress.stopped.set()
        self.pool.shutdown(cancel_futures=True)

    def finish(self, tag: str) -> str:
        """Push config and manifest, when all layers are there."""
        if "manifest.json" not in self.documents:
            raise MachineError("the engine stopped in the middle of the image: push it again.")
        described, config = self._described(json.loads(self.documents["manifest.json"]))
        names = [self.links.get(name, name) for name in described["Layers"]]
        layers = [self.blobs[name] for name in names]
        for layer, diff_id in zip(layers, json.loads(config)["rootfs"]["diff_ids"], strict=True):
            if layer.diff_id not in ("", diff_id):
                raise MachineError(
                    f"the engine gave {layer.diff_id} where the image has {diff_id}: its store is "
                    "damaged; build the image anew (docker image rm, then the same command)."
                )
        config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        if not self.registry.has(config_digest):
            path = self.folder / "config"
            path.write_bytes(config)
            self.registry.upload(path, config_digest)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": config_digest},
            "layers": [
                {"mediaType": LAYER, "size": layer.size, "digest": layer.digest} for layer in layers
            ],
        }
        return self.registry.put_manifest(tag, json.dumps(manifest).encode())

    def _described(self, images: list[dict[str, Any]]) -> tuple[dict[str, Any], bytes]:
        """The image for Azure's machines; the containerd store saves a build's papers beside it."""
        for described in images:
            config = self.documents.get(described["Config"], b"{}")
            if json.loads(config).get("architecture") == PLATFORM:
                return described, config
        raise MachineError(f"the engine gave no image for {PLATFORM}: build it with PUSH=build.")

    def _layer(self, name: str, head: bytes, file: IO[bytes]) -> None:
        if head.startswith(ZSTD):
            raise MachineError(
                "the image has layers compressed by zstd, which not all of Azure pulls: build it "
                "there with PUSH=build."
            )
        for upload in self.uploads:
            if upload.done():  # one that failed ends all, before the next layer is compressed
                upload.result()
        number = len(self.blobs)
        # the newer layouts name a layer by its hash, so one that is there need not even be written
        named = self._there(f"sha256:{posixpath.basename(name)}", number)
        if named:
            self.blobs[name] = named
            return
        path = self.folder / f"layer-{number}"
        size, plain = _spool(head, file, path)
        if head.startswith(GZIP):
            blob = Blob(plain, size)
        elif there := self._there(plain, number):
            self.blobs[name] = there
            path.unlink()
            return
        else:
            packed = self.folder / f"layer-{number}.gz"
            blob = Blob(*_compress(path, packed), plain)
            path.unlink()
            path = packed
            self.known[plain] = {"digest": blob.digest, "size": blob.size}
        self.blobs[name] = blob
        self.uploads.append(self.pool.submit(self._upload, number, size, path, blob))

    def _there(self, plain: str, number: int) -> Blob | None:
        """What the registry holds of the plain layer, as far as this machine remembers."""
        known = self.known.get(plain)
        if not known or not self.registry.has(str(known["digest"])):
            return None
        say(f"layer {number + 1}: {known['size'] / MEGABYTE:.1f} MB compressed, there already")
        return Blob(str(known["digest"]), int(known["size"]), plain)

    def _upload(self, number: int, size: int, path: Path, blob: Blob) -> None:
        if not self.registry.has(blob.digest):  # known on another machine, or twice in this image
            self.registry.upload(path, blob.digest, self.progress.add)
            verb = "uploaded"
        else:
            verb = "there already"
        path.unlink()
        sizes = f"{size / MEGABYTE:.1f} MB, {blob.size / MEGABYTE:.1f} MB compressed"
        say(f"layer {number + 1}: {sizes}, {verb}")


class _Stopped(Exception):
    """The push is over, so this upload is in vain."""


class _Progress:
    """Says now and then how much is uploaded; ends uploads once `stopped`."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._began = self._said = 0.0
        self._bytes = 0

    def add(self, count: int) -> None:
        if self.stopped.is_set():
            raise _Stopped
        with self._lock:
            self._bytes += count
            now = time.monotonic()
            if not self._began:
                self._began = self._said = now
            if now - self._said < SAY_SECONDS:
                return
            self._said = now
            speed = self._bytes / MEGABYTE / (now - self._began)
            say(f"pushed {self._bytes / MEGABYTE:.0f} MB, {speed:.1f} MB/s")


def _is_layer(name: str, head: bytes) -> bool:
    """Layers are <id>/layer.tar, or blobs/sha256/<digest> among JSON documents of the same look."""
    if name.startswith("blobs/"):
        return head[257:262] == b"ustar" or head.lstrip()[:1] not in (b"{", b"[")
    return name.endswith("layer.tar")


def _spool(head: bytes, file: IO[bytes], path: Path) -> tuple[int, str]:
    """Bytes and hash of what is written to `path`."""
    digest = hashlib.sha256()
    size = 0
    with path.open("wb") as out:
        piece = head
        while piece:
            digest.update(piece)
            out.write(piece)
            size += len(piece)
            piece = file.read(1 << 20)
    return size, f"sha256:{digest.hexdigest()}"


def _compress(source: Path, target: Path) -> tuple[str, int]:
    """Compress a layer on all processors; digest and size of the result.

    One gzip member per block, as gzip (RFC 1952, section 2.2) and so every registry client reads.
    """
    digest = hashlib.sha256()
    size = 0
    with target.open("wb") as out:
        for packed in _packed(source):
            digest.update(packed)
            out.write(packed)
            size += len(packed)
    return f"sha256:{digest.hexdigest()}", size


def _packed(source: Path) -> Iterator[bytes]:
    threads = os.cpu_count() or 1
    waiting: deque[Future[bytes]] = deque()
    with source.open("rb") as file, ThreadPoolExecutor(threads, "gzip") as pool:
        while block := file.read(BLOCK):
            waiting.append(pool.submit(_member, block))
            if len(waiting) > threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _member(block: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_FORMAT)
    return packer.compress(block) + packer.flush()


def _known(path: Path) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}

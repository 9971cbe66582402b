"""Bytes of the workspace's datastores: uploads that go on, downloads that are verified.

    store = Datastore(cloud)                                 # workspaceblobstore
    store.upload(files, "homeport/data/rows/1a2b")           # Content of each file, by name
    store.download("homeport/data/rows/1a2b", Path("here"))

What is there already with the same size and MD5 is not sent again. A SAS that has ended is asked
for anew. A download is under its final name only when size, and MD5 where the blob has one, are
right; that there is nothing to download is an error. It deletes nothing there.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from scripts.azure import retry
from scripts.azure.client import WORKSPACE_API, Cloud
from scripts.console import say
from scripts.errors import CloudError, MachineError

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

T = TypeVar("T")

DATASTORE = "workspaceblobstore"
"""Every workspace has it."""
URI = re.compile(r"azureml://(?:subscriptions/.+/)?datastores/([^/]+)/paths/(.*)")
SAS_HOURS = 8
CONNECTIONS = 4
"""Parts of one file that travel side by side."""
CHUNK = 4 << 20
MEGABYTE = 1_000_000
OLD_SAS = (401, 403)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file of this machine and what is in it."""

    path: Path
    size: int
    sha256: str
    md5: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of the datastore, named relative to the prefix that was listed."""

    name: str
    path: str
    size: int
    md5: bytes | None


def locate(uri: str) -> tuple[str, str]:
    """Datastore and path of an azureml://…/datastores/… URI."""
    found = URI.fullmatch(uri)
    if not found:
        raise CloudError(f"{uri} lies in no datastore, so it cannot be downloaded.")
    return found[1], found[2]


def uri(path: str, datastore: str = DATASTORE) -> str:
    """The URI that jobs and assets name a path by."""
    return f"azureml://datastores/{datastore}/paths/{path}"


def read(path: Path) -> Content:
    """Hash a file in one pass."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    return Content(path=path, size=path.stat().st_size, sha256=sha256.hexdigest(), md5=md5.digest())


class Datastore:
    """One blob datastore; not for several threads."""

    def __init__(self, cloud: Cloud, name: str = DATASTORE) -> None:
        self._cloud = cloud
        self._id = f"{cloud.workspace.id}/datastores/{name}"
        self.name = name
        self._client: ContainerClient | None = None

    def listed(self, prefix: str) -> list[Blob]:
        """What lies at `prefix` or below it, by name."""
        prefix = prefix.rstrip("/")

        def found(container: "ContainerClient") -> list[Blob]:
            return list(_blobs(container, prefix))

        return self._do(f"list {self.name}/{prefix}", found)

    def upload(self, files: Mapping[str, Content], prefix: str) -> int:
        """Send what is not there yet; the bytes sent."""
        from azure.storage.blob import ContentSettings

        there = {blob.name: (blob.size, blob.md5) for blob in self.listed(prefix)}
        missing = {
            name: file
            for name, file in sorted(files.items())
            if there.get(name) not in ((file.size, file.md5), (file.size, None))
        }
        total = sum(file.size for file in missing.values())
        sent = 0
        for name, file in missing.items():
            settings = ContentSettings(content_md5=bytearray(file.md5))
            progress = _Progress(f"upload: {name}", file.size)

            def put(
                container: "ContainerClient",
                path: str = f"{prefix}/{name}",
                file: Content = file,
                settings: Any = settings,
                progress: "_Progress" = progress,
            ) -> None:
                with file.path.open("rb") as data:
                    container.upload_blob(
                        path,
                        data,
                        length=file.size,
                        overwrite=True,
                        content_settings=settings,
                        max_concurrency=CONNECTIONS,
                        progress_hook=progress,
                    )

            self._do(f"upload {name}", put)
            sent += file.size
        if missing:
            say(f"upload: {len(missing)} of {len(files)} files, {_megabytes(total)}, to {prefix}")
        return sent

    def download(
        self, prefix: str, folder: Path, *, keep: Callable[[str], bool] = lambda name: True
    ) -> list[Path]:
        """Copy what lies at or below `prefix` and has a name that is to `keep` into `folder`.

        The files' paths. CloudError where there is nothing, or what came is not what lies there;
        MachineError where it does not fit on the disk.
        """
        blobs = [blob for blob in self.listed(prefix) if keep(blob.name)]
        if not blobs:
            raise CloudError(
                f"{self.name}/{prefix} holds no file, so nothing was downloaded: the job may not "
                "have written its results yet (make cloud-status)."
            )
        missing = [blob for blob in blobs if not _whole(folder / blob.name, blob)]
        total = sum(blob.size for blob in missing)
        folder.mkdir(parents=True, exist_ok=True)
        if total > (free := shutil.disk_usage(folder).free):
            raise MachineError(
                f"{folder} needs {_megabytes(total)} for {len(missing)} files, and "
                f"{_megabytes(free)} are free: free some space and give the same command again."
            )
        for blob in missing:
            self._fetch(blob, folder / blob.name)
        say(
            f"download: {len(blobs)} files, {_megabytes(sum(b.size for b in blobs))}, in {folder}"
            + (f" ({len(blobs) - len(missing)} were here)" if len(missing) < len(blobs) else "")
        )
        return [folder / blob.name for blob in blobs]

    def text(self, path: str) -> str | None:
        """The blob's text; None where there is none."""

        def get(container: "ContainerClient") -> bytes:
            return bytes(container.download_blob(path).readall())

        try:
            return self._do(f"read {path}", get).decode()
        except retry.NotFound:
            return None

    def _fetch(self, blob: Blob, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")

        def get(container: "ContainerClient") -> None:
            with part.open("wb") as file:
                container.download_blob(
                    blob.path,
                    max_concurrency=CONNECTIONS,
                    progress_hook=_Progress(f"download: {blob.name}", blob.size),
                ).readinto(file)

        try:
            self._do(f"download {blob.name}", get)
            if not _whole(part, blob):
                raise CloudError(
                    f"{blob.name} came with {part.stat().st_size} bytes, not as it lies there "
                    f"({blob.size} bytes): give the same command again."
                )
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def _do(self, what: str, function: "Callable[[ContainerClient], T]") -> T:
        """Run with retries, and with a new SAS where the old one is not accepted any more."""
        if self._client is None:
            self._client = self._connect()
        client = self._client
        try:
            return retry.call(what, lambda: function(client))
        except CloudError as error:
            if getattr(error.__cause__, "status_code", None) not in OLD_SAS:
                raise
        say(f"azure:  access to {self.name} has ended; asking for it again")
        self._client = fresh = self._connect()
        return retry.call(what, lambda: function(fresh))

    def _connect(self) -> "ContainerClient":
        """A client with the access that the workspace hands out, or our own token where none."""
        from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
        from azure.storage.blob import ContainerClient, ExponentialRetry

        store = self._cloud.rest.get(self._id, WORKSPACE_API)["properties"]
        if store["datastoreType"] != "AzureBlob":
            raise CloudError(
                f"datastore {self.name} is {store['datastoreType']}; only AzureBlob is known here."
            )
        account = store["accountName"]
        credential: Any = self._cloud.credential
        if (store.get("credentials") or {}).get("credentialsType") != "None":
            body = {"expirableSecret": True, "expireAfterHours": SAS_HOURS}
            secret = self._cloud.rest.post(f"{self._id}/listSecrets", body, WORKSPACE_API)
            if secret["secretsType"] == "Sas":
                credential = AzureSasCredential(secret["sasToken"].removeprefix("?"))
            else:
                credential = AzureNamedKeyCredential(account, secret["key"])
        return ContainerClient(
            f"https://{account}.blob.{store.get('endpoint') or 'core.windows.net'}",
            store["containerName"],
            credential=credential,
            # a part that breaks is sent again by itself; what is left is retry.call's
            retry_policy=ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=3),
        )


class _Progress:
    """A line every ten percent of a file that takes long."""

    def __init__(self, what: str, size: int) -> None:
        self._what = what
        self._size = size
        self._next = 10

    def __call__(self, done: int, total: int | None) -> None:
        percent = 100 * done // max(self._size, 1)
        if self._size > 50 * MEGABYTE and percent >= self._next:
            say(f"{self._what} {percent} % of {_megabytes(self._size)}")
            self._next = percent + 10


def _blobs(container: "ContainerClient", prefix: str) -> Iterator[Blob]:
    for blob in container.list_blobs(name_starts_with=prefix, include=["metadata"]):
        if (blob.metadata or {}).get("hdi_isfolder"):
            continue  # how a hierarchical account names folders
        if blob.name == prefix:
            name = PurePosixPath(blob.name).name
        elif blob.name.startswith(f"{prefix}/"):
            name = blob.name[len(prefix) + 1 :]
        else:
            continue  # a neighbour whose name begins alike
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise CloudError(f"{blob.name} would be written outside of the folder; not downloaded.")
        md5 = blob.content_settings.content_md5
        yield Blob(name=name, path=blob.name, size=blob.size, md5=bytes(md5) if md5 else None)


def _whole(path: Path, blob: Blob) -> bool:
    """Whether the file is the blob, by size and, where the blob has one, MD5."""
    if not path.is_file() or path.stat().st_size != blob.size:
        return False
    return blob.md5 is None or read(path).md5 == blob.md5


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"

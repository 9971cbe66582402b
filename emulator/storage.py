"""Bytes: Azurite, which Microsoft ships as its storage emulator, and what the routes do with it."""

import datetime
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from emulator.azure import Settings
    from emulator.store import Store


class Storage(Protocol):
    """The storage account of the workspace. Blob names are relative to their container."""

    address: tuple[str, int]
    """Where the account's blob service listens, for the proxy."""

    def sas(self, *, expired: bool = False) -> str:
        """An account SAS as the service hands it out (sp=rcwdl, srt=co, ss=bf), without `?`."""

    def url(self, container: str, name: str = "") -> str:
        """`https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME`, without a SAS."""

    def create_container(self, name: str) -> None:
        """Make the container, unless it is there."""

    def names(self, container: str, prefix: str = "") -> list[str]:
        """Names of all blobs that begin with `prefix`."""

    def read(self, container: str, name: str) -> bytes:
        """The blob; KeyError where there is none."""

    def write(self, container: str, name: str, data: bytes | Iterable[bytes]) -> None:
        """Make or replace the blob."""

    def delete(self, container: str, name: str) -> None:
        """Take the blob away; nothing where there is none."""

    def download(self, container: str, prefix: str, folder: Path) -> list[Path]:
        """Copy the blob `prefix`, or all below `prefix/`, into `folder`; the files' paths."""

    def upload(self, folder: Path, container: str, prefix: str) -> int:
        """Copy all files below `folder` to `prefix/`; their number."""


BLOCK = 32 << 20
"""Bytes that one request of an upload or download carries."""
SAS_HOURS = 8


class AzuriteStorage:
    """The account that Azurite serves at `url` (`https://HOST:PORT`), with its TLS verified."""

    def __init__(self, account: str, key: str, url: str, ca: Path) -> None:
        from azure.core.pipeline.transport import RequestsTransport
        from azure.storage.blob import BlobServiceClient

        parts = urllib.parse.urlsplit(url)
        self.address = (parts.hostname or "127.0.0.1", parts.port or 443)
        self._account = account
        self._key = key
        # a test's environment names the proxy and another authority: this client needs neither
        transport: Any = RequestsTransport(use_env_settings=False, connection_verify=str(ca))
        self._service = BlobServiceClient(
            f"{url.rstrip('/')}/{account}",
            credential={"account_name": account, "account_key": key},
            transport=transport,
            max_block_size=BLOCK,
            max_single_put_size=BLOCK,
            max_single_get_size=BLOCK,
            max_chunk_get_size=BLOCK,
        )

    def sas(self, *, expired: bool = False) -> str:
        from azure.storage.blob import ResourceTypes, Services, generate_account_sas

        now = datetime.datetime.now(datetime.UTC)
        end = now + datetime.timedelta(hours=-1 if expired else SAS_HOURS)
        return str(
            generate_account_sas(
                self._account,
                self._key,
                resource_types=ResourceTypes(container=True, object=True),
                permission="rcwdl",
                expiry=end,
                services=Services(blob=True, fileshare=True),
                protocol="https",
            )
        )

    def url(self, container: str, name: str = "") -> str:
        path = urllib.parse.quote("/".join(part for part in (container, name) if part))
        return f"https://{self._account}.blob.core.windows.net/{path}"

    def create_container(self, name: str) -> None:
        from azure.core.exceptions import ResourceExistsError

        try:
            self._service.create_container(name)
        except ResourceExistsError:
            return

    def names(self, container: str, prefix: str = "") -> list[str]:
        return list(self._container(container).list_blob_names(name_starts_with=prefix))

    def read(self, container: str, name: str) -> bytes:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self._container(container).download_blob(name).readall()
        except ResourceNotFoundError:
            raise KeyError(f"{container}/{name}") from None

    def write(self, container: str, name: str, data: bytes | Iterable[bytes]) -> None:
        self._container(container).upload_blob(name, data, overwrite=True)

    def delete(self, container: str, name: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            self._container(container).delete_blob(name)
        except ResourceNotFoundError:
            return

    def download(self, container: str, prefix: str, folder: Path) -> list[Path]:
        prefix = prefix.rstrip("/")
        below = f"{prefix}/" if prefix else ""
        files: list[Path] = []
        for name in self.names(container, prefix):
            if name == prefix:
                path = folder / Path(name).name
            elif name.startswith(below):
                path = folder / name.removeprefix(below)
            else:  # `data-2/x` also begins with `data`
                continue
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"the blob {name} lies outside of {folder}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                self._container(container).download_blob(name).readinto(file)
            files.append(path)
        return files

    def upload(self, folder: Path, container: str, prefix: str) -> int:
        prefix = prefix.strip("/")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in files:
            name = "/".join(part for part in (prefix, path.relative_to(folder).as_posix()) if part)
            with path.open("rb") as file:
                self._container(container).upload_blob(name, file, overwrite=True)
        return len(files)

    def _container(self, name: str) -> "ContainerClient":
        return self._service.get_container_client(name)


DATASTORE_URI = re.compile(r"azureml://(?:subscriptions/.+/)?datastores/([^/]+)/(?:paths/)?(.*)")
BLOB_URI = re.compile(
    r"https://[^/]+\.blob\.core\.windows\.net(?::443)?/([^/?]+)/?([^?]*)(?:\?.*)?"
)


def locate(uri: str, settings: "Settings", store: "Store") -> tuple[str, str]:
    """Container and blob prefix of an azureml:// datastore URI, a blob URL or an asset's ARM id.

    Raises KeyError where the asset or datastore is not there.
    """
    if uri.startswith(("/subscriptions/", "azureml:/subscriptions/")):
        asset = store.get(uri.removeprefix("azureml:"))
        if asset is None:
            raise KeyError(uri)
        properties = asset["properties"]
        uri = next(
            properties[key] for key in ("dataUri", "modelUri", "codeUri") if key in properties
        )
    if found := DATASTORE_URI.fullmatch(uri):
        datastore = store.get(f"{settings.workspace_id}/datastores/{found[1]}")
        if datastore is None:
            raise KeyError(uri)
        return str(datastore["properties"]["containerName"]), found[2]
    if found := BLOB_URI.fullmatch(uri):
        return found[1], found[2]
    raise KeyError(uri)

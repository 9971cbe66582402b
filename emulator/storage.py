"""Bytes: Azurite, which Microsoft ships as its storage emulator, and what the routes do with it."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from emulator.azure import Settings
    from emulator.store import Store


class Storage(Protocol):
    """The storage account of the workspace. Blob names are relative to their container."""

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

    def download(self, container: str, prefix: str, folder: Path) -> list[Path]:
        """Copy the blob `prefix`, or all below `prefix/`, into `folder`; the files' paths."""

    def upload(self, folder: Path, container: str, prefix: str) -> int:
        """Copy all files below `folder` to `prefix/`; their number."""


DATASTORE_URI = re.compile(r"azureml://(?:subscriptions/.+/)?datastores/([^/]+)/(?:paths/)?(.*)")
BLOB_URI = re.compile(r"https://[^/]+\.blob\.core\.windows\.net(?::443)?/([^/?]+)/?([^?]*)")


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

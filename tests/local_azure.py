"""The local Azure for tests: `local_azure` with everything, `bare_azure` without Node and jobs."""

import gc
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import requests

from emulator import azurite, certificates
from emulator.azure import Settings
from emulator.nodes import Mount, NodeError, Nodes, Program, Running
from emulator.nodes.host import HostNodes
from emulator.server import Server, serve
from emulator.storage import AzuriteStorage
from tests.tree import ROOT


@contextmanager
def local_azure(
    folder: Path, *, nodes: Nodes | None = None, registry: str = "", hurry: float = 1.0
) -> Iterator[Server]:
    """A local Azure in host mode with a real Azurite; skips where Azurite cannot be had."""
    settings = Settings(folder=folder, mode="host", hurry=hurry, registry=registry)
    try:
        found = azurite.find(ROOT / ".cache" / "azurite")
    except azurite.AzuriteError as reason:
        pytest.skip(str(reason))
    files = certificates.ensure(folder / "pki")
    process = azurite.start(found, folder / "storage", settings.account, files)
    try:
        storage = AzuriteStorage(settings.account, process.key, process.url, files.ca)
        server = serve(settings, storage, nodes or HostNodes(folder / "nodes"))
        try:
            yield server
        finally:
            _close_sessions()
            server.close()
    finally:
        process.close()


@contextmanager
def bare_azure(
    folder: Path, *, nodes: Nodes | None = None, registry: str = "", hurry: float = 1.0
) -> Iterator[Server]:
    """A local Azure within half a second: blobs lie in memory, out of the clients' reach."""
    settings = Settings(folder=folder, registry=registry, hurry=hurry)
    server = serve(settings, MemoryStorage(settings.account), nodes or NoNodes())
    try:
        yield server
    finally:
        _close_sessions()
        server.close()


@contextmanager
def environment(server: Server, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """This process as a client of `server`: its proxy, authority, login and workspace.

    MLClient cannot be closed: what of it is out of reach at the end is collected, without the
    warning that its connections were left open.
    """
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
        os.environ.update({**server.env, **(more or {})})
        yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


_SESSIONS: list[requests.Session] = []
"""What `session` made, to be closed with its server."""


def _close_sessions() -> None:
    while _SESSIONS:
        _SESSIONS.pop().close()


def session(server: Server, audience: str = "https://management.azure.com") -> requests.Session:
    """A plain HTTP client of `server`, logged in for `audience` (nobody where that is empty)."""
    client = requests.Session()
    _SESSIONS.append(client)
    client.trust_env = False
    client.proxies = {"https": server.proxy_url}
    client.verify = server.env["REQUESTS_CA_BUNDLE"]
    if audience:
        tokens = server.azure.tokens
        token = tokens.issue(audience, tokens.client_id)
        client.headers["Authorization"] = f"Bearer {token}"
    return client


class NoNodes:
    """Refuses to run anything."""

    mode = "host"

    def where(self, mount: Mount) -> str:
        return str(mount.folder)

    def pull(self, image: str) -> None:
        raise NodeError("This test runs no programs.")

    def start(self, program: Program) -> Running:
        raise NodeError("This test runs no programs.")

    def close(self) -> None:
        pass


class MemoryStorage:
    """Blobs in a dict; no client can reach them."""

    address = ("127.0.0.1", 9)

    def __init__(self, account: str) -> None:
        self._account = account
        self.containers: dict[str, dict[str, bytes]] = {}

    def sas(self, *, expired: bool = False) -> str:
        return f"se={'2000' if expired else '2999'}-01-01T00:00:00Z&sig=secret"

    def url(self, container: str, name: str = "") -> str:
        return f"https://{self._account}.blob.core.windows.net/{container}/{name}".rstrip("/")

    def create_container(self, name: str) -> None:
        self.containers.setdefault(name, {})

    def names(self, container: str, prefix: str = "") -> list[str]:
        return [name for name in sorted(self.containers[container]) if name.startswith(prefix)]

    def read(self, container: str, name: str) -> bytes:
        return self.containers[container][name]

    def write(self, container: str, name: str, data: bytes | Iterable[bytes]) -> None:
        whole = data if isinstance(data, bytes) else b"".join(data)
        self.containers[container][name] = whole

    def delete(self, container: str, name: str) -> None:
        self.containers[container].pop(name, None)

    def download(self, container: str, prefix: str, folder: Path) -> list[Path]:
        prefix = prefix.rstrip("/")
        files = []
        for name in self.names(container, prefix):
            if name == prefix:
                path = folder / Path(name).name
            elif not prefix or name.startswith(f"{prefix}/"):
                path = folder / name[len(prefix) :].lstrip("/")
            else:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.containers[container][name])
            files.append(path)
        return files

    def upload(self, folder: Path, container: str, prefix: str) -> int:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in files:
            name = f"{prefix.strip('/')}/{path.relative_to(folder).as_posix()}".lstrip("/")
            self.containers[container][name] = path.read_bytes()
        return len(files)

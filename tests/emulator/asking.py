"""Asks a local Azure as a client does, and holds its answers against the contract."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from emulator.azure import Azure
from emulator.contract import check_response
from emulator.nodes import Nodes
from emulator.nodes.host import HostNodes
from emulator.server import Server
from tests.local_azure import bare_azure

ARM = "https://management.azure.com"
IMAGE = f"homeportrehearsal.azurecr.io/homeport/train@sha256:{'0' * 64}"
JOBS, CODES, DATA = "2025-01-01-preview", "2023-04-01", "2023-04-01-preview"
MODELS, LATER = "2023-08-01-preview", "2024-01-01-preview"


class Client:
    """One workspace of one local Azure."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.azure: Azure = server.azure
        self.workspace = server.azure.settings.workspace_id
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.proxies = {"https": server.proxy_url}
        self._session.verify = server.env["REQUESTS_CA_BUNDLE"]
        token = server.azure.tokens.issue(ARM, server.azure.tokens.client_id)
        self._session.headers["Authorization"] = f"Bearer {token}"

    def ask(
        self, method: str, path: str, body: Any = None, *, api: str = LATER, expect: int = 200
    ) -> Any:
        """The answer's JSON, after its status; `path` is below the workspace, or whole."""
        whole = path if path.startswith("/") else f"{self.workspace}/{path}"
        host = ARM if whole.startswith("/subscriptions/") else self.azure.settings.api
        joint = "&" if "?" in whole else "?"
        reply = self._session.request(
            method, f"{host}{whole}{joint}api-version={api}", json=body, timeout=30
        )
        assert reply.status_code == expect, reply.text
        answer = reply.json() if reply.content else None
        bare = whole.partition("?")[0]
        wrong = check_response(method, bare, api, reply.status_code, answer)
        assert not wrong, wrong
        self.headers = reply.headers
        return answer

    def environment(self, name: str = "train", image: str = IMAGE) -> str:
        """ARM id of a new environment of the image."""
        body = {"properties": {"image": image}}
        made = self.ask("PUT", f"environments/{name}/versions/1", body, api=DATA, expect=201)
        return str(made["id"])

    def data(self, name: str, files: dict[str, bytes], kind: str = "uri_folder") -> str:
        """ARM id of a data asset; one file for `uri_file`."""
        for file, content in files.items():
            self.write(f"LocalUpload/{name}/{file}", content)
        path = f"LocalUpload/{name}/" + (next(iter(files)) if kind == "uri_file" else "")
        uri = f"azureml://datastores/workspaceblobstore/paths/{path}"
        body = {"properties": {"dataType": kind, "dataUri": uri}}
        made = self.ask("PUT", f"data/{name}/versions/1", body, api=DATA, expect=201)
        return str(made["id"])

    def write(self, name: str, content: bytes) -> None:
        """A blob in the workspace's default datastore."""
        self.azure.storage.write(self.azure.settings.blob_container, name, content)

    def read(self, name: str) -> bytes:
        return self.azure.storage.read(self.azure.settings.blob_container, name)

    def blobs(self, prefix: str) -> list[str]:
        return self.azure.storage.names(self.azure.settings.blob_container, prefix)

    def job(self, name: str, command: str, expect: int = 201, **more: Any) -> Any:
        """Submit a command job."""
        environment = more.pop("environmentId", None) or self.environment_id
        properties = {
            "jobType": "Command",
            "command": command,
            "environmentId": environment,
            **more,
        }
        body = {"properties": properties}
        return self.ask("PUT", f"jobs/{name}", body, api=JOBS, expect=expect)

    environment_id = ""
    """Of the image that jobs run in unless they name another."""
    meant = ""
    """Part of the problems that a test makes on purpose."""

    def details(self, name: str) -> Any:
        return self.ask("GET", f"/history/v1.0{self.workspace}/runs/{name}/details", api="v1.0")

    def until(self, name: str, *statuses: str, seconds: float = 20.0) -> Any:
        """The run's details as soon as it has one of the statuses."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            details = self.details(name)
            if details["status"] in statuses:
                return details
            time.sleep(0.05)
        raise AssertionError(f"{name} is {details['status']} ({details['error']})")

    def ended(self, name: str) -> Any:
        return self.until(name, "Completed", "Failed", "Canceled")

    def log(self, name: str, file: str = "user_logs/std_log.txt") -> str:
        blob = f"ExperimentRun/dcid.{name}/{file}"
        return self.azure.storage.read(self.azure.settings.artifact_container, blob).decode()

    def settled(self) -> None:
        """Follow the operation that the last answer has started to its end."""
        url = self.headers.get("Azure-AsyncOperation") or self.headers["Location"]
        for _ in range(200):
            reply = self._session.get(url, timeout=30)
            if reply.status_code == 200 and b"InProgress" not in reply.content:
                return
            time.sleep(0.05)
        raise AssertionError(f"{url} does not end")


@contextmanager
def client(folder: Path, nodes: Nodes | None = None) -> Iterator[Client]:
    """A client of a local Azure that runs jobs as processes; nothing of it may be a problem."""
    nodes = nodes or HostNodes(folder / "nodes")
    with bare_azure(folder, nodes=nodes) as server:
        asking = Client(server)
        asking.environment_id = asking.environment()
        yield asking
        nodes.close()
        meant = asking.meant or "nothing"
        problems = [each for each in server.report()["problems"] if meant not in each]
        assert not problems, problems

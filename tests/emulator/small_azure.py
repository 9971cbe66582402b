"""An Azure of the tests: the routes of online endpoints over real small servers as containers.

Requests go through the routes as the server sends them, without a socket; their bodies and the
answers are held against the contract. Scoring reaches the containers over real sockets.
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from emulator import deployments, endpoints, operations, scoring, serving
from emulator.azure import Azure, Settings
from emulator.contract import check_request, check_response
from emulator.faults import Faults
from emulator.http import Refusal, Reply, Request, Route
from emulator.journal import Journal
from emulator.nodes import Mount, NodeError, Program
from emulator.operations import Operations
from emulator.store import Store
from emulator.tokens import Tokens
from tests.local_azure import MemoryStorage

SERVER = Path(__file__).with_name("small_server.py")
ENDPOINT_VERSION = "2022-02-01-preview"
DEPLOYMENT_VERSION = "2023-04-01-preview"
IMAGE = "homeportrehearsal.azurecr.io/homeport@sha256:" + "a" * 64
QUICK = {"initialDelay": "PT0S", "period": "PT0.05S", "timeout": "PT5S", "failureThreshold": 400}


class SmallProcess:
    """One small server."""

    def __init__(self, program: Program, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.program = program
        self.log_file = folder / f"{program.name}.log"
        self.removed = False
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SERVER)],
                env={**program.environment, "PORT": str(self.port)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def log(self) -> bytes:
        return self.log_file.read_bytes()

    def exit_code(self) -> int | None:
        return self.process.poll()

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float) -> None:
        self.process.terminate()
        if self.wait(grace) is None:
            self.process.kill()
            self.process.wait()

    def remove(self) -> None:
        self.removed = True


class SmallNodes:
    """Starts small servers, whatever the image; an image of a registry elsewhere is not found."""

    mode = "host"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[SmallProcess] = []

    def where(self, mount: Mount) -> str:
        return str(mount.folder)

    def pull(self, image: str) -> None:
        if not image.startswith("homeportrehearsal."):
            raise NodeError(f"{image} is not in the registry.")

    def start(self, program: Program) -> SmallProcess:
        self.started.append(SmallProcess(program, self.folder))
        return self.started[-1]

    def close(self) -> None:
        for process in self.started:
            process.stop(0)

    @property
    def alive(self) -> list[SmallProcess]:
        return [process for process in self.started if process.exit_code() is None]


def an_azure(folder: Path, nodes: SmallNodes, hurry: float) -> Azure:
    """The parts of an Azure without a server, with blobs in memory."""
    settings = Settings(folder=folder / "azure", hurry=hurry)
    store, journal, faults = Store(), Journal(folder / "journal"), Faults()
    operations_of = Operations(
        store,
        journal,
        faults,
        "https://management.azure.com",
        f"/subscriptions/{settings.subscription}/providers/Microsoft.MachineLearningServices"
        f"/locations/{settings.location}",
    )
    return Azure(
        settings=settings,
        store=store,
        operations=operations_of,
        storage=MemoryStorage(settings.account),
        journal=journal,
        faults=faults,
        nodes=nodes,
        tokens=Tokens(settings.tenant),
    )


class SmallAzure:
    """The routes, and short ways to call them."""

    def __init__(self, folder: Path, *, hurry: float = 1.0, azure: Azure | None = None) -> None:
        """`azure` is one that a server has made, of small nodes."""
        folder.mkdir(exist_ok=True)
        self.azure = azure or an_azure(folder, SmallNodes(folder), hurry)
        assert isinstance(self.azure.nodes, SmallNodes)
        self.nodes = self.azure.nodes
        self.store, self.storage = self.azure.store, self.azure.storage
        self.journal, self.faults = self.azure.journal, self.azure.faults
        self.storage.create_container("blobs")
        self.workspace = self.azure.settings.workspace_id
        self.routes: list[Route] = [
            route
            for module in (operations, endpoints, deployments, scoring)
            for route in module.routes(self.azure)
        ]
        self.store.put(
            f"{self.workspace}/datastores/workspaceblobstore",
            {"properties": {"containerName": "blobs"}},
        )
        self.environment = self.asset(
            "environments/serve/versions/1", image=IMAGE, inferenceConfig=None
        )

    def asset(self, below: str, **properties: Any) -> str:
        """Put a version of an asset into the store; its ARM id."""
        arm_id = f"{self.workspace}/{below}"
        self.store.put(arm_id, {"properties": properties})
        return arm_id

    def model(self, path: str = "models/merged", *names: str) -> str:
        """A model of files below `path` in the default datastore; its ARM id."""
        for name in names or ("config.json", "weights/1.safetensors"):
            self.storage.write("blobs", f"{path}/{name}", name.encode())
        uri = f"azureml://datastores/workspaceblobstore/paths/{path}"
        return self.asset("models/geo/versions/3", modelUri=uri)

    def ask(self, request: Request) -> Reply:
        for route in self.routes:
            groups = route.match(request)
            if groups is not None:
                return route.handler(request, groups)
        raise AssertionError(f"no route for {request.method} {request.host}{request.path}")

    def call(self, method: str, below: str, body: Any = None) -> Reply:
        """A request of the control plane for a path below the workspace, as the SDK sends it."""
        version = DEPLOYMENT_VERSION if "/deployments" in below else ENDPOINT_VERSION
        path = f"{self.workspace}/{below}"
        assert check_request(method, path, version, body) == []
        reply = self.ask_raw(method, below, body)
        answer = reply.body if isinstance(reply.body, dict) else None
        assert check_response(method, path, version, reply.status, answer) == []
        return reply

    def ask_raw(self, method: str, below: str, body: Any = None) -> Reply:
        """The same without the contract, which knows names' rules too."""
        version = DEPLOYMENT_VERSION if "/deployments" in below else ENDPOINT_VERSION
        return self.ask(
            Request(
                method=method,
                host="management.azure.com",
                path=f"{self.workspace}/{below}",
                query={"api-version": version},
                body=b"" if body is None else json.dumps(body).encode(),
            )
        )

    def finish(self, reply: Reply, seconds: float = 60) -> dict[str, Any]:
        """Poll the operation of a reply until it is done; its status."""
        path = reply.headers["Azure-AsyncOperation"].removeprefix("https://management.azure.com")
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            request = Request(
                method="GET", host="management.azure.com", path=path.partition("?")[0]
            )
            body = self.ask(request).body
            assert isinstance(body, dict)
            if body["status"] != "InProgress":
                return body
            time.sleep(0.02)
        raise AssertionError("the operation does not end")

    def endpoint_put(self, name: str = "geo", **properties: Any) -> Reply:
        body = {
            "location": "eastus",
            "identity": {"type": "SystemAssigned"},
            "properties": {"authMode": "Key", "properties": {}, "traffic": {}, **properties},
            "tags": {},
        }
        return self.call("PUT", f"onlineEndpoints/{name}", body)

    def endpoint(self, name: str = "geo", **properties: Any) -> Reply:
        """PUT an endpoint and wait until it is done."""
        reply = self.endpoint_put(name, **properties)
        self.finish(reply)
        return reply

    def deployment_body(
        self,
        *,
        capacity: int = 1,
        variables: dict[str, str] | None = None,
        liveness: dict[str, Any] | None = None,
        readiness: dict[str, Any] | None = None,
        **properties: Any,
    ) -> dict[str, Any]:
        return {
            "location": "eastus",
            "tags": {},
            "sku": {"name": "Default", "capacity": capacity},
            "properties": {
                "endpointComputeType": "Managed",
                "environmentId": self.environment,
                "environmentVariables": variables or {},
                "instanceType": "Standard_DS3_v2",
                "livenessProbe": QUICK | (liveness or {}),
                "readinessProbe": QUICK | (readiness or {}),
                **properties,
            },
        }

    def deploy(self, name: str = "blue", endpoint: str = "geo", **settings: Any) -> dict[str, Any]:
        """PUT a deployment and wait until its operation is done; the operation's status."""
        body = self.deployment_body(**settings)
        return self.finish(self.call("PUT", f"onlineEndpoints/{endpoint}/deployments/{name}", body))

    def logs(self, container: str = "InferenceServer", tail: int = 200) -> str:
        """Of the deployment `blue`."""
        body = {"containerType": container, "tail": tail}
        reply = self.call("POST", "onlineEndpoints/geo/deployments/blue/getLogs", body)
        assert isinstance(reply.body, dict)
        return str(reply.body["content"])

    def properties(self, below: str) -> dict[str, Any]:
        body = self.call("GET", below).body
        assert isinstance(body, dict)
        properties: dict[str, Any] = body["properties"]
        return properties

    def route_to(self, **traffic: int) -> None:
        self.endpoint(traffic=traffic)

    def key(self, name: str = "geo") -> str:
        body = self.call("POST", f"onlineEndpoints/{name}/listKeys").body
        assert isinstance(body, dict)
        return str(body["primaryKey"])

    def score(
        self,
        path: str = "/score",
        body: bytes = b"{}",
        *,
        method: str = "POST",
        query: dict[str, str] | None = None,
        authorization: str | None = None,
        **headers: str,
    ) -> Reply:
        """A request to the endpoint `geo`, with its key unless told otherwise; header names have
        `_` for `-`."""
        given = f"Bearer {self.key()}" if authorization is None else authorization
        return self.ask(
            Request(
                method=method,
                host="geo.eastus.inference.ml.azure.com",
                path=path,
                query=query or {},
                headers={
                    "authorization": given,
                    **{name.replace("_", "-"): value for name, value in headers.items()},
                },
                body=body,
            )
        )

    def close(self) -> None:
        serving.close(self.azure)
        self.nodes.close()


def refused(refusal: Refusal) -> str:
    """All that a refusal says, as the SDK prints it."""
    return " ".join([refusal.code, str(refusal), *(d["message"] for d in refusal.details)])

"""Starts the parts of the local Azure, and answers its control.

    server = serve(settings, storage, nodes)        server.env is what clients need; server.close()

Clients reach the TLS port (front.py) through the proxy (proxy.py). Control, in plain HTTP on the
proxy's port:

    GET /health    {"status": "ok", "mode": …}
    GET /report    problems, hosts that were dialled, requests per route, contract versions
    POST /faults   a faults.Fault as JSON;  DELETE /faults  none are left
    GET /faults    what has struck since, and how many requests are held
    GET /resources all that is here, and what runs; ?hashed=NAME hashes assets (inventory.py)
    GET /msi/token the managed identity of jobs and deployments (vault.py)
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from emulator import certificates, contract, inventory, openai, serving, vault, workspace
from emulator.azure import Azure, Settings
from emulator.faults import Fault, Faults, Kind
from emulator.front import Front
from emulator.http import Refusal, Reply, Request
from emulator.journal import Journal
from emulator.nodes import Nodes
from emulator.nodes.docker import CA_PATH
from emulator.operations import Operations
from emulator.proxy import Proxy
from emulator.storage import Storage
from emulator.store import Store
from emulator.tokens import Tokens


@dataclass(slots=True)
class Server:
    """One local Azure that runs."""

    azure: Azure
    proxy_url: str
    env: dict[str, str]
    """What a client's environment needs: proxy, CA, login and the workspace's names."""
    _front: Front
    _proxy: Proxy

    def report(self) -> dict[str, Any]:
        """What GET /report answers."""
        return {
            **self.azure.journal.report(),
            "requests": dict(sorted(self._front.counts.items())),
            "contract": contract.versions(),
        }

    def control(self, request: Request) -> Reply:
        """The control's routes."""
        try:
            match request.method, request.path:
                case "GET", "/health":
                    return Reply(200, {"status": "ok", "mode": self.azure.settings.mode})
                case "GET", "/report":
                    return Reply(200, self.report())
                case "POST", "/faults":
                    self.azure.faults.add(fault_of(request.json()))
                    return Reply(204)
                case "GET", "/faults":
                    return Reply(200, self.azure.faults.report())
                case "GET", "/resources":
                    return Reply(200, inventory.of(self.azure, request.query.get("hashed", "")))
                case "DELETE", "/faults":
                    self.azure.faults.clear()
                    return Reply(204)
                case "GET", "/msi/token":
                    return vault.identity_token(self.azure, request)
            raise Refusal(404, "NotFound", f"The control has no {request.method} {request.path}.")
        except Refusal as refusal:
            return Reply(refusal.status, refusal.body(), refusal.headers)

    def close(self) -> None:
        """End both ports, and what jobs and deployments still run."""
        openai.close(self.azure)
        serving.close(self.azure)
        self.azure.nodes.close()
        for port in (self._proxy, self._front):
            port.shutdown()
            port.server_close()


def serve(
    settings: Settings,
    storage: Storage,
    nodes: Nodes,
    *,
    bind: str = "127.0.0.1",
    proxy_port: int = 0,
    node_host: str = "127.0.0.1",
) -> Server:
    """Start the local Azure; it serves until `close`.

    `node_host` is the name by which jobs and deployments reach the proxy. OSError where
    `proxy_port` is taken.
    """
    files = certificates.ensure(settings.folder / "pki")
    journal, store, faults = Journal(settings.folder / "journal"), Store(), Faults()
    operations = Operations(
        store,
        journal,
        faults,
        "https://management.azure.com",
        f"/subscriptions/{settings.subscription}/providers/Microsoft.MachineLearningServices"
        f"/locations/{settings.location}",
    )
    azure = Azure(
        settings=settings,
        store=store,
        operations=operations,
        storage=storage,
        journal=journal,
        faults=faults,
        nodes=nodes,
        tokens=Tokens(settings.tenant),
    )
    workspace.found(azure)
    front = Front(("127.0.0.1", 0), files, azure)
    served: list[Server] = []
    try:
        proxy = Proxy(
            (bind, proxy_port),
            services=("127.0.0.1", front.server_address[1]),
            storage=storage.address,
            control=lambda request: served[0].control(request),
            journal=journal,
            faults=faults,
        )
    except OSError as problem:
        front.server_close()
        raise OSError(f"The proxy cannot listen on {bind}:{proxy_port}: {problem}.") from None
    port = proxy.server_address[1]
    node_ca = CA_PATH if settings.mode == "docker" else str(files.ca)
    reach = _reach(f"http://{node_host}:{port}", node_ca)
    azure.node_environment = {
        **reach,
        "MSI_ENDPOINT": f"http://{node_host}:{port}/msi/token",
        "MSI_SECRET": azure.tokens.identity_secret,
        "NO_PROXY": f"{reach['NO_PROXY']},{node_host}",
    }
    url = f"http://127.0.0.1:{port}"
    env = {
        **_reach(url, str(files.ca)),
        "AZURE_TENANT_ID": settings.tenant,
        "AZURE_CLIENT_ID": azure.tokens.client_id,
        "AZURE_CLIENT_SECRET": azure.tokens.client_secret,
        "AZURE_SUBSCRIPTION_ID": settings.subscription,
        "AZURE_RESOURCE_GROUP": settings.resource_group,
        "AZURE_WORKSPACE": settings.workspace,
        # else azureml-mlflow asks the control plane which clouds there are
        "AZUREML_CURRENT_CLOUD": "AzureCloud",
        "HOMEPORT_REHEARSAL_CONTROL": url,
    }
    server = Server(azure, url, env, front, proxy)
    served.append(server)
    for name, listener in (("front", front), ("proxy", proxy)):
        threading.Thread(
            target=listener.serve_forever, args=(0.02,), name=f"rehearsal-{name}", daemon=True
        ).start()
    return server


def fault_of(given: Any) -> Fault:
    """The fault that a JSON object asks for; Refusal 400 where it asks for something else."""
    known = {field.name for field in fields(Fault)}
    if not isinstance(given, Mapping) or not set(given) <= known:
        raise Refusal(400, "BadFault", f"A fault has the fields {', '.join(sorted(known))}.")
    if given.get("kind") not in get_args(Kind):
        raise Refusal(400, "BadFault", f"`kind` is one of {', '.join(get_args(Kind))}.")
    for field in fields(Fault):
        kind = (int, float) if isinstance(field.default, float) else type(field.default)
        value = given.get(field.name, field.default)
        if field.name != "kind" and not isinstance(value, kind):
            raise Refusal(400, "BadFault", f"`{field.name}` cannot be {value!r}.")
        if field.name in ("method", "path"):
            try:
                re.compile(value)
            except re.error as wrong:
                raise Refusal(400, "BadFault", f"`{field.name}` is no pattern: {wrong}.") from None
    return Fault(**given)


def _reach(proxy: str, ca: str) -> dict[str, str]:
    """The variables that curl, requests, httpx and Azure's clients read."""
    return {
        "HTTPS_PROXY": proxy,
        "NO_PROXY": "localhost,127.0.0.1",
        **dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"), ca),
    }

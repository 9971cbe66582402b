"""The server behind the proxy: all of Azure's hosts on one TLS port, and the control.

    server = serve(settings, storage, nodes)        server.env is what clients need; server.close()

A request goes to the first route of MODULES that matches. One that no route knows is answered 501
and makes the session red; so does a request or an answer against the contract of its api-version,
and a bug of ours. Control, in plain HTTP on the proxy's port:

    GET /health    {"status": "ok", "mode": …}
    GET /report    problems, hosts that were dialled, requests per route
    POST /faults   a faults.Fault as JSON;  DELETE /faults  none are left
    GET /msi/token the managed identity of jobs and deployments (vault.py)
"""

import importlib
import re
import ssl
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_args

from emulator import certificates, contract, vault, workspace
from emulator.azure import Azure, Settings
from emulator.faults import Fault, Faults, Kind
from emulator.http import API, ARM, Dropped, Refusal, Reply, Request, Route
from emulator.journal import Journal, shape, without_secrets
from emulator.nodes import Nodes
from emulator.nodes.docker import CA_PATH
from emulator.operations import Operations
from emulator.proxy import Address, Proxy
from emulator.storage import Storage
from emulator.store import Store, now
from emulator.tokens import Tokens
from emulator.wire import ABORTED, Body, read_request, send

MODULES = (
    "operations",
    "entra",
    "workspace",
    "acr",
    "vault",
    "assets",
    "jobs",
    "history",
    "computes",
    "endpoints",
    "deployments",
    "scoring",
)
AUDIENCES = (
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://ml.azure.com",
)
"""Of the tokens that the control plane and the region's data plane take."""
DRAINED = 64 << 20
"""Bytes of an unread body that are read away: a client reads an answer only after its body."""
HANDSHAKE_SECONDS = 30
IDLE_SECONDS = 600


class Front(ThreadingHTTPServer):
    """Speaks TLS as any of Azure's hosts, and answers by routes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, bind: Address, files: certificates.Certificates, azure: Azure) -> None:
        self.azure = azure
        self.counts: Counter[str] = Counter()
        self._routes = find_routes(azure)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(files.server, files.key)
        super().__init__(bind, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # the handshake belongs to the connection's thread: in accept, one client would stop all
        request.settimeout(HANDSHAKE_SECONDS)
        with self._tls.wrap_socket(request, server_side=True) as connection:
            connection.settimeout(IDLE_SECONDS)
            super().finish_request(connection, client_address)
            with suppress(OSError):
                connection.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing; anything else is a bug."""
        if not isinstance(sys.exc_info()[1], ABORTED):
            self.azure.journal.problem(f"server: {traceback.format_exc()}")

    def answer(self, request: Request) -> Reply:
        """What the routes say, in the journal with its secrets taken out; Dropped is passed on."""
        begin = time.monotonic()
        reply: Reply | None = None
        try:
            reply = self._guarded(request)
        finally:
            self._keep(request, reply, time.monotonic() - begin)
        return reply

    def _guarded(self, request: Request) -> Reply:
        faults = self.azure.faults
        about = {"method": request.method, "path": request.path}
        if faults.take("reset", **about):
            raise Dropped
        if fault := faults.take("status", **about):
            return _refused(fault.status, fault.retry_after)
        try:
            reply = self._route(request)
        except Refusal as refusal:
            reply = Reply(refusal.status, refusal.body(), refusal.headers)
        except Dropped:
            raise
        except Exception:
            self.azure.journal.problem(
                f"{request.method} {request.host}{request.path}: {traceback.format_exc()}"
            )
            reply = Reply(
                500, Refusal(500, "InternalServerError", "A bug of the rehearsal.").body()
            )
        if faults.take("lost_reply", **about):
            raise Dropped
        return reply

    def _route(self, request: Request) -> Reply:
        for route in self._routes:
            groups = route.match(request)
            if groups is None:
                continue
            if not re.fullmatch(f"{ARM}|{API}", request.host):
                return route.handler(request, groups)
            self.azure.tokens.require(request, *AUDIENCES)
            self._require_workspace(groups.get("workspace_id"))
            check_request(self.azure, request)
            try:
                reply = route.handler(request, groups)
            except Refusal as refusal:
                reply = Reply(refusal.status, refusal.body(), refusal.headers)
            check_response(self.azure, request, reply)
            return reply
        self.azure.journal.problem(
            f"501: no route knows {request.method} https://{request.host}{request.path}"
            f" (api-version {request.api_version or 'none'})"
        )
        raise Refusal(
            501,
            "NotEmulated",
            f"The rehearsal does not know {request.method} https://{request.host}{request.path}.",
        )

    def _require_workspace(self, asked: str | None) -> None:
        if asked and asked.lower() != self.azure.settings.workspace_id.lower():
            group = asked.split("/")[4]
            raise Refusal(
                404,
                "ResourceNotFound",
                f"The Resource '{asked.partition('/providers/')[2]}' under resource group '{group}'"
                " was not found.",
            )

    def _keep(self, request: Request, reply: Reply | None, seconds: float) -> None:
        name = shape(request)
        self.counts[name] += 1
        entry = {
            "time": now(),
            "method": request.method,
            "host": request.host,
            "path": request.path,
            "query": dict(request.query),
            "agent": request.headers.get("user-agent", ""),
            "request": None if request.stream else request.body,
            "status": reply.status if reply else None,
            "response": reply.body if reply else None,
            "seconds": round(seconds, 3),
        }
        self.azure.journal.request(without_secrets(entry))


class _Handler(BaseHTTPRequestHandler):
    server: Front
    protocol_version = "HTTP/1.1"
    server_version = "homeport-rehearsal"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").lower()
        request = read_request(self, stream=host.partition(":")[0].endswith(".azurecr.io"))
        try:
            send(self, self.server.answer(request))
        except Dropped:
            self.close_connection = True
        if isinstance(request.stream, Body):
            request.stream.drain(DRAINED)
            if not request.stream.ended:
                self.close_connection = True  # what is left would be read as the next request

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """The journal keeps the requests."""


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
        "HOMEPORT_REHEARSAL_CONTROL": url,
    }
    server = Server(azure, url, env, front, proxy)
    served.append(server)
    for name, listener in (("front", front), ("proxy", proxy)):
        threading.Thread(
            target=listener.serve_forever, args=(0.05,), name=f"rehearsal-{name}", daemon=True
        ).start()
    return server


def find_routes(azure: Azure) -> list[Route]:
    """The routes of all MODULES, in their order."""
    routes: list[Route] = []
    for name in MODULES:
        routes += importlib.import_module(f"emulator.{name}").routes(azure)
    return routes


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


def _refused(status: int, retry_after: float) -> Reply:
    code = "TooManyRequests" if status == 429 else "ServiceUnavailable"
    body = Refusal(status, code, f"The service answers {status}: a fault that was asked for.")
    return Reply(status, body.body(), {"Retry-After": f"{retry_after:g}"})


def check_request(azure: Azure, request: Request) -> None:
    """Refuse what the contract of its api-version does not allow, as the service words it."""
    body = request.json() if request.body else None
    wrong = contract.check_request(request.method, request.path, request.api_version, body)
    if wrong:
        azure.journal.problem(f"{request.method} {request.path}: {' '.join(wrong)}")
        raise Refusal(
            400,
            "UserError",
            "Request is invalid and/or missing fields.",
            details=[{"code": "RequestInvalid", "message": sentence} for sentence in wrong],
        )


def check_response(azure: Azure, request: Request, reply: Reply) -> None:
    """Keep an answer of ours that the contract does not allow as a problem."""
    body = reply.body if isinstance(reply.body, dict | list) else None
    wrong = contract.check_response(
        request.method, request.path, request.api_version, reply.status, body
    )
    for sentence in wrong:
        azure.journal.problem(f"our answer to {request.method} {request.path}: {sentence}")

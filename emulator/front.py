"""The TLS port: answers as any of Azure's hosts, by the routes of MODULES.

A request goes to the first route that matches. One that no route knows is answered 501 and makes
the session red; so does a request or an answer against the contract of its api-version, and a bug
of ours. Faults that were asked for strike here, before the route or after it.
"""

import importlib
import math
import re
import ssl
import sys
import time
import traceback
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from emulator import contract, tenants
from emulator.azure import Azure
from emulator.certificates import Certificates
from emulator.faults import Fault
from emulator.http import API, ARM, Dropped, Refusal, Reply, Request, Route
from emulator.journal import shape, without_secrets
from emulator.proxy import Address
from emulator.store import now
from emulator.wire import ABORTED, Body, read_request, send

MODULES = (
    "operations",
    "entra",
    "workspace",
    "acr",
    "vault",
    "assets",
    "registries",
    "jobs",
    "history",
    "tracking",
    "computes",
    "endpoints",
    "deployments",
    "scoring",
    "openai",
)
AUDIENCES = (
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://ml.azure.com",
)
"""Of the tokens that the control plane and the region's data plane take."""
DISCOVERY = "/discovery"
"""The one document of the region that azure-ai-ml asks for without a token."""
DRAINED = 64 << 20
"""Bytes of an unread body that are read away: a client reads an answer only after its body."""
CODES = {403: "AuthorizationFailed", 429: "TooManyRequests"}
"""What the service calls a refusal, by its status."""
HANDSHAKE_SECONDS = 30
IDLE_SECONDS = 600


class Front(ThreadingHTTPServer):
    """Speaks TLS as any of Azure's hosts, and answers by routes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, bind: Address, files: Certificates, azure: Azure) -> None:
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
        if faults.take("reset", **about) or faults.hold("hold", **about):
            raise Dropped
        if fault := faults.take("status", **about):
            return _refused(fault, request)
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
        if faults.take("lost_reply", **about) or faults.hold("hold_reply", **about):
            raise Dropped
        return reply

    def _route(self, request: Request) -> Reply:
        for route in self._routes:
            groups = route.match(request)
            if groups is None:
                continue
            if not re.fullmatch(f"{ARM}|{API}", request.host):
                return route.handler(request, groups)
            if request.path != DISCOVERY:
                claims = self.azure.tokens.require(request, *AUDIENCES)
                tenants.require(self.azure, claims, request.path)
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


def find_routes(azure: Azure) -> list[Route]:
    """The routes of all MODULES, in their order."""
    routes: list[Route] = []
    for name in MODULES:
        routes += importlib.import_module(f"emulator.{name}").routes(azure)
    return routes


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


def _refused(fault: Fault, request: Request) -> Reply:
    """The answer that was asked for, in Azure's words where a verb may read them."""
    words = f"The service answers {fault.status}: a fault that was asked for."
    if fault.status == 403:
        words = (
            "The client does not have authorization to perform action "
            f"'Microsoft.Resources/{request.method.lower()}' over scope '{request.path}' or the "
            "scope is invalid."
        )
    code = CODES.get(fault.status, "ServiceUnavailable")
    wait = str(math.ceil(fault.retry_after))  # azure-core reads an integer
    return Reply(fault.status, Refusal(fault.status, code, words).body(), {"Retry-After": wait})

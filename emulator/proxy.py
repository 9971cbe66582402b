"""The CONNECT proxy: Azure's host names are answered on this machine, all others are refused.

Clients are pointed here by HTTPS_PROXY, so nothing in them is patched, and what they dial is on
record: journal.egress. Requests that are not CONNECT are for the control (server.py), which answers
on the same port in plain HTTP.
"""

import re
import socket
import sys
import threading
import traceback
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from emulator.faults import Faults
from emulator.http import Reply, Request
from emulator.journal import Journal
from emulator.wire import ABORTED, read_request, send

STORAGE = r"[a-z0-9]+\.blob\.core\.windows\.net"
ALLOWED = (
    r"management\.azure\.com",
    r"login\.microsoftonline\.com",
    r"ml\.azure\.com",
    r"[a-z0-9]+\.api\.azureml\.ms",
    r"cert-[a-z0-9]+\.experiments\.azureml\.net",
    r"[a-z0-9-]+\.[a-z0-9]+\.inference\.ml\.azure\.com",
    r"[a-z0-9]+\.azurecr\.io",
    r"[a-z0-9-]+\.vault\.azure\.net",
    r"[a-z0-9-]+\.openai\.azure\.com",
)
"""Host patterns that the TLS server answers for."""
BLOCK = 1 << 16

Address = tuple[str, int]


class Proxy(ThreadingHTTPServer):
    """Answers CONNECT by a tunnel to `services` or `storage`, all else by `control`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        bind: Address,
        *,
        services: Address,
        storage: Address,
        control: Callable[[Request], Reply],
        journal: Journal,
        faults: Faults,
    ) -> None:
        self.services = services
        self.storage = storage
        self.control = control
        self.journal = journal
        self.faults = faults
        super().__init__(bind, _Handler)

    def address_of(self, host: str, port: str) -> Address | None:
        """Where a tunnel to `host` ends; None where it is refused."""
        if port != "443":
            return None
        if re.fullmatch(STORAGE, host, re.IGNORECASE):
            return self.storage
        if any(re.fullmatch(pattern, host, re.IGNORECASE) for pattern in ALLOWED):
            return self.services
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing; anything else is a bug."""
        if not isinstance(sys.exc_info()[1], ABORTED):
            self.journal.problem(f"proxy: {traceback.format_exc()}")


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_CONNECT(self) -> None:
        self.close_connection = True
        host, _, port = self.path.rpartition(":")
        target = self.server.address_of(host, port)
        self.server.journal.egress(host or self.path, allowed=target is not None)
        if target is None:
            self.send_error(403, "Only Azure's hosts can be reached in a rehearsal")
            return
        faults = self.server.faults
        if target == self.server.storage and (
            faults.take("reset", method="CONNECT", path=host)
            or faults.hold("hold", method="CONNECT", path=host)
        ):
            return
        try:
            upstream = socket.create_connection(target, timeout=10)
        except OSError as problem:
            self.server.journal.problem(f"{host} does not answer at {target}: {problem}")
            self.send_error(502, "The service behind this host does not answer")
            return
        upstream.settimeout(None)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with upstream:
            back = threading.Thread(
                target=_pump, args=(upstream.recv, self.connection), daemon=True
            )
            back.start()
            _pump(self.rfile.read1, upstream)  # read1: bytes may wait in its buffer already
            back.join()

    def do_GET(self) -> None:
        if not self.path.startswith("/"):  # http://HOST/… of a client that uses HTTP_PROXY
            host = urllib.parse.urlsplit(self.path).netloc
            self.server.journal.egress(host, allowed=False)
            self.close_connection = True
            self.send_error(403, "Only Azure's hosts can be reached in a rehearsal")
            return
        request = read_request(self)
        send(self, self.server.control(request))

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """The journal keeps what is worth keeping."""


def _pump(read: Callable[[int], bytes], target: socket.socket) -> None:
    with suppress(OSError):
        while block := read(BLOCK):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)

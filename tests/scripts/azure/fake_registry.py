"""A container registry in memory: Azure's token exchange, uploads in pieces, faults on demand."""

import hashlib
import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from azure.core.credentials import AccessToken

LOGIN, REFRESH = "login", "refresh"


class Login:
    """A credential whose token the registry knows."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        self.scopes += scopes
        return AccessToken(LOGIN, 9_999_999_999)


@dataclass
class FakeRegistry:
    """What it holds, what it was asked, and what it is to do wrong."""

    url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    """By tag and by digest."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    received: int = 0
    """Bytes of layers that were sent here."""
    forbids: bool = False
    """Refuses to exchange the login's token."""
    breaks: int = 0
    """So many pieces are taken, then the connection breaks without an answer."""
    loses: int = 0
    """So many uploads are forgotten when a connection has broken."""
    renews: int = 0
    """So many times, the token has ended before the next piece."""
    refuses: list[int] = field(default_factory=list)
    """Status codes of the next answers."""
    location: str = ""
    """What stands before the path in Location."""
    token: str = ""


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    registry = FakeRegistry()

    class Handler(_Handler):
        holder = registry

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    holder: FakeRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        registry = self.holder
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        registry.counts[f"{self.command} {path.split('/')[-2]}"] += 1
        if path.startswith("/oauth2/"):
            self._login(path)
        elif registry.refuses:
            self._answer(registry.refuses.pop(0), headers={"Retry-After": "1"})
        elif not registry.token or self.headers.get("Authorization") != f"Bearer {registry.token}":
            self._challenge()
        elif path.split("/")[-2] == "manifests":
            self._manifest(path.split("/")[-1])
        elif "/blobs/uploads/" in path:
            self._upload(path.split("/")[-1])
        else:
            there = path.split("/")[-1] in registry.blobs
            self._answer(200 if there else 404)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

    def _login(self, path: str) -> None:
        form = {key: value[0] for key, value in parse_qs(self.body.decode()).items()}
        if self.holder.forbids:
            self._answer(401, b'{"errors": [{"message": "authentication required"}]}')
        elif path.endswith("exchange"):
            assert form["access_token"] == LOGIN
            self._answer(200, json.dumps({"refresh_token": REFRESH}).encode())
        else:
            assert form["refresh_token"] == REFRESH
            assert form["scope"] == "repository:homeport:pull,push"
            self.holder.token = uuid.uuid4().hex
            self._answer(200, json.dumps({"access_token": self.holder.token}).encode())

    def _challenge(self) -> None:
        self._answer(401, headers={"WWW-Authenticate": 'Bearer realm="x",service="y",scope="z"'})

    def _manifest(self, name: str) -> None:
        registry = self.holder
        if self.command == "PUT":
            digest = _digest(self.body)
            registry.manifests |= {name: self.body, digest: self.body}
            self._answer(201, headers={"Docker-Content-Digest": digest})
        elif (found := registry.manifests.get(name)) is None:
            self._answer(404)
        else:
            self._answer(200, found, {"Docker-Content-Digest": _digest(found)})

    def _upload(self, name: str) -> None:
        registry = self.holder
        if self.command == "POST":
            name = uuid.uuid4().hex
            registry.uploads[name] = b""
        if name not in registry.uploads:
            self._answer(404)
            return
        headers = {"Location": f"{registry.location}/v2/homeport/blobs/uploads/{name}?state=1"}
        if self.command == "PATCH":
            if registry.renews:
                registry.renews -= 1
                registry.token = uuid.uuid4().hex
                self._challenge()
                return
            registry.uploads[name] += self.body
            registry.received += len(self.body)
            if registry.breaks:
                registry.breaks -= 1
                if registry.loses:
                    registry.loses -= 1
                    del registry.uploads[name]
                self.close_connection = True
                return
        if self.command == "PUT":
            whole = registry.uploads.pop(name)
            digest = parse_qs(urlsplit(self.path).query)["digest"][0]
            if _digest(whole) != digest:
                self._answer(400, b'{"errors": [{"message": "provided digest did not match"}]}')
                return
            registry.blobs[digest] = whole
            self._answer(201, headers={"Docker-Content-Digest": digest})
            return
        headers["Range"] = f"0-{max(0, len(registry.uploads[name]) - 1)}"
        self._answer(204 if self.command == "GET" else 202, headers=headers)

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"

"""HTTP/1.1 on a connection: reading a request into `Request`, writing a `Reply`."""

import json
import ssl
import urllib.parse
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase

from emulator.http import Reply, Request

ABORTED = (ConnectionError, TimeoutError, ssl.SSLError)
"""What a client that goes away looks like."""
BLOCK = 1 << 20


class Body:
    """The body of a request as it comes, by Content-Length or chunked."""

    def __init__(self, source: BufferedIOBase, *, length: int, chunked: bool) -> None:
        self._source = source
        self._chunked = chunked
        self._left = 0 if chunked else length
        self.ended = not chunked and length == 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all that is left where it is negative; none at the end."""
        if size < 0:
            return b"".join(self)
        if self._chunked and not self._left and not self.ended:
            self._next_chunk()
        block = self._source.read(min(size, self._left)) if self._left else b""
        if self._left and not block:
            raise ConnectionResetError("the request ended within its body")
        self._left -= len(block)
        if not self._left:
            if not self._chunked:
                self.ended = True
            elif block:
                self._source.readline()
        return block

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(BLOCK):
            yield block

    def drain(self, most: int) -> None:
        """Read away up to about `most` bytes of what is left."""
        while most > 0 and (block := self.read(BLOCK)):
            most -= len(block)

    def _next_chunk(self) -> None:
        self._left = int(self._source.readline().partition(b";")[0], 16)
        if not self._left:
            self.ended = True
            while self._source.readline().strip():  # trailers
                pass


def read_request(handler: BaseHTTPRequestHandler, *, stream: bool = False) -> Request:
    """The request whose head `handler` has parsed; with `stream`, its body is still to be read."""
    target = urllib.parse.urlsplit(handler.path)
    path = "/" + urllib.parse.unquote(target.path).lstrip("/")
    while "//" in path:
        path = path.replace("//", "/")
    headers = {name.lower(): value for name, value in handler.headers.items()}
    body = Body(
        handler.rfile,
        length=int(headers.get("content-length") or 0),
        chunked="chunked" in headers.get("transfer-encoding", "").lower(),
    )
    return Request(
        method=handler.command,
        host=headers.get("host", "").partition(":")[0].lower(),
        path=path,
        query=dict(urllib.parse.parse_qsl(target.query, keep_blank_values=True)),
        headers=headers,
        body=b"" if stream else body.read(),
        stream=body if stream else None,
    )


def send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    """Write the answer."""
    headers = dict(reply.headers)
    names = {name.lower() for name in headers}
    body = reply.body
    if isinstance(body, dict | list):
        body = json.dumps(body, ensure_ascii=False).encode()
        if "content-type" not in names:
            headers["Content-Type"] = "application/json; charset=utf-8"
    elif body is None:
        body = b""
    chunked = not isinstance(body, bytes) and "content-length" not in names
    bodiless = handler.command == "HEAD" or reply.status in (204, 304)
    if chunked and not bodiless:
        headers["Transfer-Encoding"] = "chunked"
    elif isinstance(body, bytes) and "content-length" not in names and reply.status != 204:
        headers["Content-Length"] = str(len(body))
    if "x-ms-request-id" not in names:
        headers["x-ms-request-id"] = str(uuid.uuid4())
    handler.send_response(reply.status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if isinstance(body, bytes):
        if not bodiless:
            handler.wfile.write(body)
        return
    try:
        if not bodiless:
            _send_stream(handler, body, chunked=chunked)
    finally:
        close = getattr(body, "close", None)
        if close:
            close()


def _send_stream(handler: BaseHTTPRequestHandler, body: Iterator[bytes], *, chunked: bool) -> None:
    for block in body:
        if not block:
            continue
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
    if chunked:
        handler.wfile.write(b"0\r\n\r\n")

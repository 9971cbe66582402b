"""gunicorn's threaded worker, with this server's manners towards what is slow, or not quite HTTP.

gunicorn gives a connection a thread from its first moment, and waits in it without end for the rest
of a request's head; so as many clients as there are threads, each sending a byte now and then,
would stop the server, its probes included. It also waits up to two seconds, in the loop that serves
all, for one client to close its side. Here that loop gathers each head, which takes a thread only
when it is whole, and watches the connections that are to end. A body is read by a thread, until a
deadline (`Timed`). A broken request gets a 4xx in our form, where gunicorn has a page of HTML and
some 5xx. What a request asks is no matter of this module.

It overrides what gunicorn 27 names so; tests/serve/test_worker.py tells when another one does not.
"""

import contextlib
import errno
import json
import selectors
import socket
import time
from collections import deque
from functools import partial
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers import gthread

from serve.errors import RequestError

HEAD_SECONDS = 10.0
"""From connecting, or from a request's first byte, to the end of its head."""
HEAD_BYTES = 1 << 20
"""More than gunicorn's own limits allow: it says what is too large."""
PIECE_BYTES = 64 * 1024
END_SECONDS = 2.0
"""After the last answer, for the client to close its side; else that answer might be lost."""
END_BYTES = 2 << 20
"""Many clients send all of a body, of 1 MiB at most, before they read that it is refused."""
SEND_SECONDS = 60.0
"""For a client to take one piece of an answer; one that never reads must not keep its place."""
HEAD_END = b"\r\n\r\n"
STATUS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
}
"""Every other one is 400."""


class Timed(socket.socket):
    """A connection whose reads end at a deadline all together, however many bytes come in time."""

    read_by: float | None = None
    """On time.monotonic's clock; None is no deadline."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if self.read_by is None:
            return super().recv(size, flags)
        timeout, left = self.gettimeout(), self.read_by - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left if timeout is None else min(timeout, left))
        try:
            return super().recv(size, flags)
        finally:
            self.settimeout(timeout)


class Worker(gthread.ThreadWorker):  # type: ignore[misc] # shipped without types
    """Named by gunicorn.conf.py. `pending_conns` are connections that have no thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ending: deque[Any] = deque()

    def enqueue_req(self, conn: Any) -> None:
        """Of a new connection, or one that was kept: gather the head of its next request."""
        if self.cfg.is_ssl:  # only gunicorn can read it
            super().enqueue_req(conn)
            return
        if not conn.initialized:
            conn.sock = Timed(fileno=conn.sock.detach())
            conn.init()
        conn.sock.read_by = None
        conn.sock.setblocking(False)
        conn.head = bytearray(conn.parser.unreader.take_buffered())
        conn.timeout = time.monotonic() + HEAD_SECONDS
        if len(self.pending_conns) > self.worker_connections // 2:
            self._drop(self.pending_conns[0])  # the slowest gives way to who comes
        self.pending_conns.append(conn)
        callback = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, callback)
        callback(conn.sock)  # most heads are there already

    def on_pending_socket_readable(self, conn: Any, client: socket.socket) -> None:
        if HEAD_END not in conn.head:
            try:
                piece = client.recv(PIECE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # reset
                piece = b""
            conn.head += piece
            if not piece:
                self._drop(conn)
                return
        if HEAD_END in conn.head or len(conn.head) >= HEAD_BYTES:
            self.pending_conns.remove(conn)
            self.poller.unregister(client)
            conn.parser.unreader.unread(bytes(conn.head))
            conn.data_ready = True
            super().enqueue_req(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """In a thread. A client that does not take its answer counts as one that has left."""
        conn.sock.settimeout(SEND_SECONDS)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "the answer is not taken") from None

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """The answer to what is no HTTP; anything else is a bug, and gunicorn logs it."""
        if not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        status, reason = STATUS.get(type(exc), (400, "Bad Request"))
        said = str(exc).partition(":")[0]  # after it comes what was sent, which may hold a key
        self.log.info("refused what is not HTTP as this server reads it: %s", said)
        sentence = f"the request is not HTTP as this server reads it: {said.rstrip('.')}."
        _answer(client, RequestError(status, sentence), reason)

    def finish_request(self, conn: Any, fs: Any) -> None:
        if fs.cancelled() or fs.exception() is not None or fs.result() is not False:
            super().finish_request(conn, fs)
        else:
            self._end(conn)

    def murder_pending(self) -> None:
        """Called in each round of the loop, once a second at least."""
        now = time.monotonic()
        while self.pending_conns and self.pending_conns[0].timeout < now:
            conn = self.pending_conns.popleft()
            self.poller.unregister(conn.sock)
            if conn.head:
                sentence = f"the request did not arrive within {HEAD_SECONDS:g} s; send it again."
                _answer(conn.sock, RequestError(408, sentence), "Request Timeout")
            self._end(conn)
        while self._ending and self._ending[0].timeout < now:
            self._close(self._ending.popleft())

    def _cap_keepalive(self, deadline: float) -> None:
        """When the worker is to stop, it waits no longer for a head that may never come either."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _end(self, conn: Any) -> None:
        """Say that nothing more comes, and wait for the client to say so too."""
        conn.drained = 0
        conn.timeout = time.monotonic() + END_SECONDS
        try:
            conn.sock.read_by = None
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            callback = partial(self._on_ending_socket_readable, conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, callback)
        except (OSError, ValueError):  # the client has left
            self._close(conn)
            return
        if len(self._ending) > self.worker_connections // 4:
            self._close(self._ending.popleft())
        self._ending.append(conn)

    def _on_ending_socket_readable(self, conn: Any, client: socket.socket) -> None:
        try:
            piece = client.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:  # reset
            piece = b""
        conn.drained += len(piece)
        if not piece or conn.drained > END_BYTES:
            self._ending.remove(conn)
            self._close(conn)

    def _drop(self, conn: Any) -> None:
        self.pending_conns.remove(conn)
        self._close(conn)

    def _close(self, conn: Any) -> None:
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()


def _answer(sock: Any, error: RequestError, reason: str) -> None:
    body = json.dumps(error.body()).encode() + b"\n"
    head = (
        f"HTTP/1.1 {error.status} {reason}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        util.write_nonblock(sock, head.encode() + body)
    except OSError:  # the client has left
        return

"""Clients that are slow, that never end, and that do not read: none of them keeps a thread."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from serve import worker
from tests.serve.test_server import Env, Server, running, until

pytestmark = pytest.mark.slow
PROBE_SECONDS = 2
"""Azure's patience; it is some milliseconds on a machine that has nothing else to do."""
THREADS = 12


@pytest.fixture(scope="module")
def server(server_env: Env, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = server_env(SERVE_MAX_CONCURRENT="2", SERVE_MAX_QUEUE="2")  # and eight more threads
    with running(env, tmp_path_factory.mktemp("log") / "server.log") as made:
        yield made


@pytest.fixture
def connections(server: Server) -> Iterator["Connections"]:
    with ExitStack() as stack:
        yield Connections(server, stack)


class Connections:
    """Many at once, more than the server has threads."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self._server = server
        self._stack = stack

    def open(self, sent: bytes, count: int = 3 * THREADS) -> list[socket.socket]:
        made = []
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", self._server.port), timeout=30)
            made.append(self._stack.enter_context(closing(one)))
            one.sendall(sent)
        return made


def probe_is_quick(server: Server) -> bool:
    begun = time.monotonic()
    status = server.ask("GET", "/", timeout=30)[0]
    return status == 200 and time.monotonic() - begun < PROBE_SECONDS


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: y",
        b"GET / HTTP/1.0\r\n\r\n",  # answered, and then never closed by the client
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",  # a second one on the same connection
    ],
)
def test_more_slow_clients_than_threads_delay_nobody(
    server: Server, connections: Connections, sent: bytes
) -> None:
    connections.open(sent)
    assert all(probe_is_quick(server) for _ in range(3))


def test_a_head_that_does_not_end_is_told_so_after_a_while(
    server: Server, connections: Connections
) -> None:
    (slow,) = connections.open(b"GET / HTTP/1.1\r\n", count=1)
    begun, got = time.monotonic(), b""
    slow.settimeout(1)
    while time.monotonic() - begun < 2 * worker.HEAD_SECONDS:
        try:
            slow.sendall(b"a")  # a byte a second must not make it last
            piece = slow.recv(4096)
        except TimeoutError:
            continue
        got += piece
        if not piece or b"}}" in got:
            break
    assert got.startswith(b"HTTP/1.1 408 ")
    sentence = json.loads(got.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert sentence == "the request did not arrive within 10 s; send it again."
    assert worker.HEAD_SECONDS - 1 < time.monotonic() - begun < worker.HEAD_SECONDS + 3


def test_a_head_in_pieces_and_two_requests_in_one_piece_are_answered(
    server: Server, connections: Connections
) -> None:
    (one,) = connections.open(b"GET / HTTP/1.1\r\n", count=1)
    for piece in (b"Host: x\r", b"\n", b"\r", b"\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"):
        time.sleep(0.05)
        one.sendall(piece)
    got = b""

    def both() -> bool:
        nonlocal got
        got += one.recv(4096)
        return got.count(b"HTTP/1.1 200 OK") == 2 and got.endswith(b"alive\n")

    until(both, 5)


CHUNKED = b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nAuthorization Bearer s3cret\r\n\r\n", 400),
        (b"GET /?key=s3cret HTTP/s3cret\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ns3cret\x00: a\r\n\r\n", 400),
        (b"GET /%s HTTP/1.1\r\n\r\n" % (b"s3cret" * 1000), 414),
        (b"GET / HTTP/1.1\r\n%s\r\n" % b"".join(b"a%d: s3cret\r\n" % n for n in range(101)), 431),
        (b"GET / HTTP/1.1\r\napi-key: %s\r\n\r\n" % (b"s3cret" * 2000), 431),
        (b"GET / HTTP/1.1\r\napi-key: %s" % (b"s3cret" * 200_000), 431),
        (CHUNKED + b"s3cret\r\n", 400),
        (CHUNKED + b"2\r\n{}\r\n0\r\ns3cret\r\n\r\n", 400),
        (b"\x16\x03\x01\x02s3cret\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_is_a_sentence_that_repeats_nothing_of_it(
    server: Server, connections: Connections, sent: bytes, status: int
) -> None:
    (one,) = connections.open(sent, count=1)
    got = b""
    while piece := one.recv(65536):
        got += piece
        if b"}}" in got:
            break
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["code"] == status
    assert b"s3cret" not in got
    assert "s3cret" not in server.log.read_text()


def test_the_reads_of_a_timed_connection_end_together() -> None:
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(worker.Timed(fileno=ours.detach())) as timed:
        timed.settimeout(5)
        timed.read_by = time.monotonic() + 0.3
        for _ in range(3):
            theirs.sendall(b"a")
            assert timed.recv(9) == b"a"
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            timed.recv(9)
        assert time.monotonic() - begun < 1
        theirs.sendall(b"a")
        with pytest.raises(TimeoutError):  # though something is there
            timed.recv(9)
        timed.read_by = None
        assert (timed.recv(9), timed.gettimeout()) == (b"a", 5)

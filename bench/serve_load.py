"""The load of bench-serve: a closed loop of callers over loopback, in a process of its own.

    python -m bench.serve_load < JOB     prints {"seconds", "answers", "probes", …}

One thread, one selector, raw sockets; what arrives is stored with its time and read only when all
of it is over, because the server shares the cores with this. Each caller keeps its connection
while the server does, and sends its next request when the answer to its last is whole. Beside them
a probe asks for one small page ten times a second, on a new connection each, and gives up after
two seconds, as Azure ML's does.
"""

import bisect
import json
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import serve_watch

HOST = "127.0.0.1"
PROBE_EVERY = 0.1
PROBE_SECONDS = 2.0
PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    port: int
    callers: int
    asks: list[tuple[str, str]]
    """Path and JSON body of each request, in order."""
    warm: list[tuple[str, str]]
    """The same, sent before and not measured."""
    probe: str | None
    """Path of the page that the probe asks for; None for no probes."""
    limit_seconds: float
    """After it every unanswered request is an error."""
    server: list[int]
    """The server's processes."""
    layer: list[int]
    """Those of them that handle requests, whose CPU time is wanted by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of one request."""

    seconds: float
    first: float | None
    """Seconds to the first text of a stream; None where the answer came whole."""
    prompt_tokens: int
    new_tokens: int
    error: str = ""


class Exchange:
    """One request under way: connects, sends, stores what arrives with its time."""

    def __init__(self, request: bytes, port: int, connection: socket.socket | None) -> None:
        self.started = time.perf_counter()
        self.ended = 0.0
        self.reused = connection is not None
        self.socket = connection or _connect(port)
        self.request = request
        self._unsent = memoryview(request)
        self.raw = bytearray()
        self.marks: list[tuple[int, float]] = []
        """(bytes so far, when)."""
        self._body = -1
        self._length: int | None = None
        self._keep = True

    @property
    def wants(self) -> int:
        return selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ

    def send(self) -> None:
        self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def receive(self) -> bool:
        """Store what is there; True when the answer is whole."""
        piece = self.socket.recv(PIECE_BYTES)
        now = time.perf_counter()
        self.raw += piece
        self.marks.append((len(self.raw), now))
        if self._body < 0 and (end := self.raw.find(b"\r\n\r\n")) >= 0:
            self._body = end + 4
            self._read_head(bytes(self.raw[:end]).lower())
        if self._whole(ended=not piece):
            self.ended = now
            return True
        return False

    def fail(self) -> None:
        """Reset or refused: it is over, with what there is."""
        self.ended = time.perf_counter()
        self._keep = False

    def kept(self) -> socket.socket | None:
        """The connection for the next request, or None where the server closes it."""
        if self._keep:
            return self.socket
        self.socket.close()
        return None

    def _read_head(self, head: bytes) -> None:
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name == b"content-length":
                self._length = int(value)
            elif name == b"connection" and value.strip() == b"close":
                self._keep = False

    def _whole(self, *, ended: bool) -> bool:
        if ended:
            self._keep = False
            return True
        if self._body < 0:
            return False
        if self._length is not None:
            return len(self.raw) >= self._body + self._length
        # chunked; a stream without either ends with the connection
        return self.raw.endswith(b"\r\n0\r\n\r\n")


def run(job: Job) -> dict[str, Any]:
    """Do all of it: warm up, then the measured requests."""
    end = time.perf_counter() + job.limit_seconds
    _loop(job, job.warm, None, end)
    probes: list[float] = []
    layer, own = serve_watch.cpu_seconds(job.layer), time.process_time()
    others = _others(job)
    started = time.perf_counter()
    done = _loop(job, job.asks, probes, end)
    seconds = max((exchange.ended for exchange in done), default=started) - started
    others = _others(job) - others
    own = time.process_time() - own
    return {
        "seconds": seconds,
        "cpu_seconds": own,
        "other_seconds": others,
        "layer_seconds": serve_watch.cpu_seconds(job.layer) - layer,
        "answers": [asdict(read(exchange)) for exchange in done],
        "probes": probes,
    }


def _others(job: Job) -> float:
    """CPU seconds so far of everything that is neither the server nor this process."""
    ours = serve_watch.cpu_seconds(job.server) + time.process_time()
    return serve_watch.busy_seconds() - ours


def _loop(
    job: Job, asks: Sequence[tuple[str, str]], probes: list[float] | None, end: float
) -> list[Exchange]:
    """Every request once, `callers` at a time; probes too where there is a list for them."""
    waiting = deque(_request(path, body, job.port) for path, body in asks)
    done: list[Exchange] = []
    probe: Exchange | None = None
    next_probe = time.perf_counter()
    with selectors.DefaultSelector() as selector:

        def start(request: bytes, connection: socket.socket | None) -> Exchange:
            exchange = Exchange(request, job.port, connection)
            selector.register(exchange.socket, exchange.wants, exchange)
            return exchange

        def stop(exchange: Exchange) -> None:
            selector.unregister(exchange.socket)

        under_way = {start(waiting.popleft(), None) for _ in range(min(job.callers, len(waiting)))}
        while under_way:
            now = time.perf_counter()
            if now > end:
                for exchange in under_way:
                    exchange.ended = now
                    exchange.socket.close()
                    done.append(exchange)
                break
            if probes is not None and job.probe is not None:
                if probe and now - probe.started > PROBE_SECONDS:
                    stop(probe)
                    probe.socket.close()
                    probes.append(now - probe.started)
                    probe = None
                if probe is None and now >= next_probe:
                    probe = start(_request(job.probe, None, job.port), None)
                    next_probe = now + PROBE_EVERY
            for key, _ in selector.select(PROBE_EVERY / 2):
                exchange = key.data
                try:
                    if exchange.wants == selectors.EVENT_WRITE:
                        exchange.send()
                        if exchange.wants == selectors.EVENT_READ:
                            selector.modify(exchange.socket, exchange.wants, exchange)
                        continue
                    if not exchange.receive():
                        continue
                except OSError:
                    exchange.fail()
                stop(exchange)
                if exchange is probe:
                    probe.socket.close()
                    if probes is not None:
                        probes.append(exchange.ended - exchange.started)
                    probe = None
                    continue
                under_way.discard(exchange)
                if exchange.reused and not exchange.raw:
                    # the server closed an idle connection; as any client does, ask again
                    exchange.socket.close()
                    under_way.add(start(exchange.request, None))
                    continue
                done.append(exchange)
                connection = exchange.kept()
                if waiting:
                    under_way.add(start(waiting.popleft(), connection))
                elif connection:
                    connection.close()
        if probe:
            probe.socket.close()
    return done


def read(exchange: Exchange) -> Answer:
    """What an exchange that is over says."""
    raw = bytes(exchange.raw)
    seconds = exchange.ended - exchange.started
    head, _, body = raw.partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].decode(errors="replace")
    if " 200" not in status:
        said = body.decode(errors="replace").strip()[:200]
        error = f"{status or 'no answer'} {said}".strip()
        return Answer(seconds=seconds, first=None, prompt_tokens=0, new_tokens=0, error=error)
    if b"text/event-stream" in head:
        return _read_stream(exchange, raw, seconds)
    body = body if b"chunked" not in head.lower() else _joined(body)
    try:
        usage = json.loads(body)["usage"]
    except (ValueError, LookupError, TypeError):
        return Answer(
            seconds=seconds, first=None, prompt_tokens=0, new_tokens=0, error="an answer cut short"
        )
    return Answer(
        seconds=seconds,
        first=None,
        prompt_tokens=usage["prompt_tokens"],
        new_tokens=usage["completion_tokens"],
    )


def _read_stream(exchange: Exchange, raw: bytes, seconds: float) -> Answer:
    """Events stand on lines of their own, whatever chunks they came in."""
    first: float | None = None
    usage: dict[str, int] = {}
    error = ""
    at = 0
    while (at := raw.find(b"data: {", at)) >= 0:
        end = raw.find(b"\n", at)
        end = len(raw) if end < 0 else end
        try:
            event = json.loads(raw[at + len(b"data: ") : end])
        except ValueError:
            error = "an event that is not JSON"
            break
        if event.get("error"):
            error = str(event["error"])[:200]
        usage = event.get("usage") or usage
        if first is None and any(_text(choice) for choice in event.get("choices", ())):
            mark = bisect.bisect_left(exchange.marks, (end, 0.0))
            first = exchange.marks[mark][1] - exchange.started
        at = end
    if not usage and not error:
        error = "a stream without token counts"
    return Answer(
        seconds=seconds,
        first=first,
        prompt_tokens=usage.get("prompt_tokens", 0),
        new_tokens=usage.get("completion_tokens", 0),
        error=error,
    )


def _text(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or choice
    return any(delta.get(name) for name in ("content", "text", "reasoning", "reasoning_content"))


def _joined(chunks: bytes) -> bytes:
    """The body of a chunked answer."""
    body = bytearray()
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        body += rest[:length]
        chunks = rest[length + 2 :] if length else b""
    return bytes(body)


def _request(path: str, body: str | None, port: int) -> bytes:
    head = f"Host: {HOST}:{port}\r\n"
    if body is None:
        return f"GET {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode()
    sent = body.encode()
    head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + sent


def _connect(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    made.connect_ex((HOST, port))
    return made


def main() -> None:
    given = json.load(sys.stdin)
    given["asks"] = [tuple(ask) for ask in given["asks"]]
    given["warm"] = [tuple(ask) for ask in given["warm"]]
    print(json.dumps(run(Job(**given))))


if __name__ == "__main__":
    main()

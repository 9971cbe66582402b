"""The soak's clients: so many at once, each asks, reads or goes away, and asks again.

    load = Load(port=server.port, asks=asks, seed=1)
    load.alone(30)                      # each request once, on the quiet server
    load.run("load", clients=64, seconds=270)
    load.run("engine killed", clients=64, seconds=60, at=Event(after=30, act=kill))
    load.outcomes

One thread, one selector and raw sockets, as the bench's load. Every request has its own number,
which goes out as x-request-id, and ends in exactly one Outcome. None is sent twice.
"""

import heapq
import itertools
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.serve_load import HOST, Exchange
from trials.soak_asks import Ask, Said, read, request_id

LEAVE_SHARE = 0.1
"""So many of the requests are given up by their client."""
LEAVE_SECONDS = (0.0, 1.5)
"""When it does, after the request is sent."""
PAUSE_SECONDS = 1.0
"""Of a client that was refused; Retry-After says more, so these are impatient ones."""
LAST_SECONDS = 150.0
"""Longest that the last answers are waited for; the server itself ends a request after 120."""
LEAST = 16
"""Requests whose answers are known at least, of two of each dialect."""
TICK = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What is done once to the server under load."""

    after: float
    """Seconds from the phase's begin."""
    act: Callable[[], None]
    recovery: float = 0.0
    """Longest that the phase goes on after it, until a request from after it is answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one request ended."""

    number: int
    ask: int
    phase: str
    started: float
    """On time.monotonic's clock, as `ended`."""
    ended: float
    sent: float | None
    """When the whole request was handed to the system; None where it never was."""
    said: Said

    @property
    def id(self) -> str:
        return request_id(self.number)


@dataclass(eq=False, kw_only=True, slots=True)
class _Open:
    """One request under way."""

    number: int
    ask: int
    exchange: Exchange
    started: float
    patience: float | None
    """Seconds from when it is sent until its client goes away; None for one that stays."""
    sent: float | None = None

    def left(self, now: float) -> bool:
        """Whether its client has had enough."""
        return (
            self.patience is not None and self.sent is not None and now > self.sent + self.patience
        )


@dataclass(kw_only=True)
class Load:
    """All requests of one soak."""

    port: int
    asks: Sequence[Ask]
    seed: int
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._numbers = itertools.count(1)

    def alone(self, seconds: float) -> None:
        """Each request once, one at a time, as many as the time allows; the others are dropped."""
        picks = iter(range(len(self.asks)))
        least = itertools.islice(picks, LEAST)
        self._loop("quiet", least, 1, LAST_SECONDS, leave_share=0)
        self._loop("quiet", picks, 1, seconds, leave_share=0)
        self.asks = self.asks[: len(self.outcomes)]

    def run(self, phase: str, *, clients: int, seconds: float, at: Event | None = None) -> None:
        """Ask for so long, do once what `at` says, and wait for the last answers."""
        self._loop(phase, self._any(), clients, seconds, leave_share=LEAVE_SHARE, at=at)

    def _any(self) -> Iterator[int]:
        while True:
            yield self._draw.randrange(len(self.asks))

    def _loop(
        self,
        phase: str,
        picks: Iterator[int],
        clients: int,
        seconds: float,
        *,
        leave_share: float,
        at: Event | None = None,
    ) -> None:
        begun = time.monotonic()
        end = begun + seconds
        under_way: set[_Open] = set()
        done: Event | None = None
        acted = 0.0
        # who asks next: when, a number that orders them, the connection that it kept
        queue: list[tuple[float, int, socket.socket | None]]
        queue = [(begun, -client, None) for client in range(clients)]
        heapq.heapify(queue)
        with selectors.DefaultSelector() as selector:
            while under_way or queue:
                now = time.monotonic()
                if at is not None and now >= begun + at.after:
                    at.act()
                    done, at = at, None
                    acted = time.monotonic()
                if done is not None and self._recovered(acted):
                    done = None
                if done is not None and now < acted + done.recovery:
                    end = max(end, now + 1)
                while queue and (queue[0][0] <= now or now >= end):
                    _, _, connection = heapq.heappop(queue)
                    pick = next(picks, None) if now < end else None
                    if pick is None:
                        _close(connection)
                    else:
                        leaves = self._draw.random() < leave_share
                        one = self._start(pick, connection, leaves=leaves)
                        selector.register(one.exchange.socket, one.exchange.wants, one)
                        under_way.add(one)
                for key, _ in selector.select(TICK):
                    one = key.data
                    if _moved(selector, one):
                        selector.unregister(one.exchange.socket)
                        under_way.discard(one)
                        said = read(bytes(one.exchange.raw))
                        self._note(phase, one, said)
                        pause = 0.0 if said.state == "answered" else PAUSE_SECONDS
                        kept = one.exchange.kept()
                        heapq.heappush(queue, (time.monotonic() + pause, one.number, kept))
                now = time.monotonic()
                for one in [one for one in under_way if one.left(now) or now > end + LAST_SECONDS]:
                    selector.unregister(one.exchange.socket)
                    under_way.discard(one)
                    one.exchange.socket.close()
                    self._note(
                        phase, one, Said(state="left" if one.left(now) else "silent", status=0)
                    )
                    heapq.heappush(queue, (now, one.number, None))

    def _recovered(self, since: float) -> bool:
        """Whether a request that came since then is answered; the newest are looked at first."""
        recent = itertools.takewhile(lambda one: one.ended > since, reversed(self.outcomes))
        return any(one.started > since and one.said.state == "answered" for one in recent)

    def _start(self, pick: int, connection: socket.socket | None, *, leaves: bool) -> _Open:
        number = next(self._numbers)
        sent = self.asks[pick].sent(number, f"{HOST}:{self.port}")
        return _Open(
            number=number,
            ask=pick,
            exchange=Exchange(sent, self.port, connection),
            started=time.monotonic(),
            patience=self._draw.uniform(*LEAVE_SECONDS) if leaves else None,
        )

    def _note(self, phase: str, one: _Open, said: Said) -> None:
        self.outcomes.append(
            Outcome(
                number=one.number,
                ask=one.ask,
                phase=phase,
                started=one.started,
                ended=time.monotonic(),
                sent=one.sent,
                said=said,
            )
        )


def _moved(selector: selectors.BaseSelector, one: _Open) -> bool:
    """Send or receive what can be; True when it is over, whole or not."""
    exchange = one.exchange
    try:
        if exchange.wants == selectors.EVENT_READ:
            return exchange.receive()
        exchange.send()
        if exchange.wants == selectors.EVENT_READ:
            one.sent = time.monotonic()
            selector.modify(exchange.socket, exchange.wants, one)
    except OSError:  # reset or refused
        exchange.fail()
        return True
    return False


def _close(connection: socket.socket | None) -> None:
    if connection is not None:
        connection.close()

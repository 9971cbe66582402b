"""Who may generate now, who waits, and who is told to come again.

    with admission.enter(deadline):
        ...generate...

At most `running` are inside, at most `waiting` stand in line, first come first served. It knows
no HTTP beyond the two refusals, and nothing of what is done inside.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from serve.errors import RequestError

FIRST_GUESS_SECONDS = 5.0
"""How long a request takes, until some have been seen."""


class Admission:
    """A fair gate with a bounded line."""

    def __init__(self, *, running: int, waiting: int) -> None:
        self._places = running
        self._line_length = waiting
        self._lock = threading.Lock()
        self._running = 0
        self._line: deque[threading.Event] = deque()
        self._typical_seconds = FIRST_GUESS_SECONDS

    @property
    def load(self) -> tuple[int, int]:
        """(running, waiting) at this moment."""
        with self._lock:
            return self._running, len(self._line)

    @contextmanager
    def enter(self, deadline: float) -> Iterator[None]:
        """Wait for a place; RequestError 429 when the line is full, 503 at the deadline."""
        self._acquire(deadline)
        started = time.monotonic()
        try:
            yield
        finally:
            self._release(time.monotonic() - started)

    def _acquire(self, deadline: float) -> None:
        with self._lock:
            if self._running < self._places:
                self._running += 1
                return
            if len(self._line) >= self._line_length:
                full = f"{self._running} requests are running and {len(self._line)} waiting"
                retry = self._retry_after()
                raise RequestError(
                    429, f"the server is full: {full}; retry in {retry} s.", retry_after=retry
                )
            turn = threading.Event()
            self._line.append(turn)
        if turn.wait(max(deadline - time.monotonic(), 0)):
            return
        with self._lock:
            if turn.is_set():  # its turn came just now
                return
            self._line.remove(turn)
            retry = self._retry_after()
        raise RequestError(
            503,
            f"no place came free within the time allowed; retry in {retry} s.",
            retry_after=retry,
        )

    def _release(self, seconds: float) -> None:
        with self._lock:
            self._typical_seconds += 0.2 * (seconds - self._typical_seconds)
            if self._line:
                self._line.popleft().set()  # hands its own place on
            else:
                self._running -= 1

    def _retry_after(self) -> int:
        """Seconds until the present line has moved on."""
        rounds = (len(self._line) + 1) / self._places
        return max(1, math.ceil(rounds * self._typical_seconds))

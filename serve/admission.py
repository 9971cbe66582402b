"""Who may generate now, who waits, and who is told to come again.

    with admission.enter(deadline, places=request.n, gone=client_is_gone) as seconds_waited:
        ...generate...

At most `running` generations are inside, at most `waiting` requests stand in line, first come first
served. It knows no HTTP beyond its refusals, and nothing of what is done inside.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve.errors import RequestError

FIRST_GUESS_SECONDS = 5.0
"""How long a request takes, until some have been seen."""
LOOK_SECONDS = 0.5
"""How often a waiting request looks whether its client is still there."""


class Gone(Exception):
    """The client has left while it stood in line; there is nobody to answer."""


class _Turn(threading.Event):
    """One request in line."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places


class Admission:
    """A fair gate with a bounded line."""

    def __init__(self, *, running: int, waiting: int) -> None:
        self.places = running
        self._line_length = waiting
        self._lock = threading.Lock()
        self._taken = 0
        self._line: deque[_Turn] = deque()
        self._typical_seconds = FIRST_GUESS_SECONDS

    @property
    def load(self) -> tuple[int, int]:
        """(generations running, requests waiting) at this moment."""
        with self._lock:
            return self._taken, len(self._line)

    def need_room(self) -> None:
        """RequestError 429 where even the smallest request would get it; costs next to nothing."""
        with self._lock:
            if not self._free(1):
                self._need_line()

    @contextmanager
    def enter(
        self, deadline: float, *, places: int = 1, gone: Callable[[], bool] = lambda: False
    ) -> Iterator[float]:
        """Wait for the places, and give how long that took; a place is one generation.

        Raises RequestError 400 for more places than there are, 429 when the line is full, 503 at
        the deadline; Gone when the client has left.
        """
        came = time.monotonic()
        self._acquire(deadline, places, gone)
        started = time.monotonic()
        try:
            yield started - came
        finally:
            self._release(places, time.monotonic() - started)

    def _acquire(self, deadline: float, places: int, gone: Callable[[], bool]) -> None:
        if places > self.places:
            raise RequestError(
                400,
                f"{places} answers at once are more than this server makes ({self.places}); "
                "ask for fewer.",
            )
        with self._lock:
            if self._free(places):
                self._taken += places
                return
            self._need_line()
            turn = _Turn(places)
            self._line.append(turn)
        while not turn.wait(min(LOOK_SECONDS, max(deadline - time.monotonic(), 0))):
            late, left = time.monotonic() >= deadline, gone()
            if not (late or left):
                continue
            with self._lock:
                if turn.is_set():  # its turn came just now
                    return
                self._line.remove(turn)
                self._let_in()  # who stood behind it may need fewer places
                retry = self._retry_after()
            if left:
                raise Gone
            raise RequestError(
                503,
                f"no place came free within the time allowed; retry in {retry} s.",
                retry_after=retry,
            )

    def _free(self, places: int) -> bool:
        return not self._line and self._taken + places <= self.places

    def _need_line(self) -> None:
        if len(self._line) < self._line_length:
            return
        full = f"{self._taken} answers are under way and {len(self._line)} wait"
        retry = self._retry_after()
        raise RequestError(
            429, f"the server is full: {full}; retry in {retry} s.", retry_after=retry
        )

    def _release(self, places: int, seconds: float) -> None:
        with self._lock:
            self._typical_seconds += 0.2 * (seconds - self._typical_seconds)
            self._taken -= places
            self._let_in()

    def _let_in(self) -> None:
        while self._line and self._taken + self._line[0].places <= self.places:
            turn = self._line.popleft()
            self._taken += turn.places
            turn.set()

    def _retry_after(self) -> int:
        """Seconds until the present line has moved on."""
        rounds = (len(self._line) + 1) / self.places
        return max(1, math.ceil(rounds * self._typical_seconds))

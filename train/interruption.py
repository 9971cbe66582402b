"""SIGTERM and SIGINT: stop soon, and lose nothing.

Azure ML gives a job 30 seconds between SIGTERM and SIGKILL. While a model trains, a signal is only
noted, and the trainer asks for it after every micro-batch (train/checkpoints.py); at any other time
it ends what is being done at once, since every finished part is on disk already. A second SIGINT
ends the process without waiting.
"""

import contextlib
import logging
import signal
import sys
import types
from collections.abc import Iterator
from typing import Any

from train.errors import Interrupted

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN = "the same command goes on from there"


class Stop:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the signal, once it came."""
        self._noting = False

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """In this block a signal is noted, not acted on."""
        self.check()
        self._noting = True
        try:
            yield
        finally:
            self._noting = False

    def check(self) -> None:
        """Stop now if that was asked for: what is raised in a destructor ends nothing."""
        if self.requested:
            raise Interrupted(f"{self.requested}: stopped; {AGAIN}.")

    def handle(self, number: int, frame: types.FrameType | None) -> None:
        name = signal.Signals(number).name
        again, self.requested = self.requested, name
        if not self._noting:
            raise Interrupted(f"{name}: stopped; what was finished is kept, and {AGAIN}.")
        if again and number == signal.SIGINT:
            raise Interrupted(f"{name} again: stopped at once; {AGAIN}, the newest checkpoint.")
        log.info("%s: writing a checkpoint, then stopping", name)


@contextlib.contextmanager
def caught() -> Iterator[Stop]:
    """Handle both signals until the end of the block."""
    stop = Stop()
    before = {number: signal.signal(number, stop.handle) for number in SIGNALS}
    tell = sys.unraisablehook

    def tell_others(what: Any) -> None:
        if not isinstance(what.exc_value, Interrupted):
            tell(what)

    sys.unraisablehook = tell_others
    try:
        yield stop
    finally:
        sys.unraisablehook = tell
        for number, handler in before.items():
            signal.signal(number, handler)

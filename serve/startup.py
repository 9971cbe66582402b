"""Carries the one sentence of a failed init() from the worker to the end of the server's log.

The worker that loads the model is a child of the process that started; its sentence would be
followed by the server's own lines about a worker lost. So it goes through a pipe, and the parent
prints it last. gunicorn.conf.py calls listen() and last_words(); score.py calls fail().
"""

import os
import sys
from typing import NoReturn

BOOT_ERROR = 3
"""gunicorn's exit code for a worker that cannot start; the parent ends with it, without a retry."""
MAX_BYTES = 4096  # what a pipe takes at once

_pipe: tuple[int, int] | None = None


def listen() -> None:
    """In the parent, before it forks."""
    global _pipe
    _pipe = os.pipe()
    os.set_blocking(_pipe[0], False)


def fail(sentence: str) -> NoReturn:
    """In the worker: leave the sentence and end at once, before the server prints a traceback."""
    if _pipe is None:  # started without our gunicorn.conf.py
        print(f"serve: {sentence}", file=sys.stderr)  # noqa: T201 - the last thing it says
    else:
        os.write(_pipe[1], sentence.encode("utf-8", "replace")[:MAX_BYTES])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(BOOT_ERROR)


def last_words() -> None:
    """In the parent, when all else is said."""
    if _pipe is None:
        return
    try:
        sentence = os.read(_pipe[0], MAX_BYTES).decode("utf-8", "replace")
    except BlockingIOError:
        return
    sys.stdout.flush()
    print(f"serve: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - no logger from here on

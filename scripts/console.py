"""How every verb speaks: progress and errors for people on stderr, results on stdout."""

import sys
from collections.abc import Callable

from scripts.errors import VerbError
from train.recipe import InputError

INTERRUPTED = 130


def say(line: str = "") -> None:
    """One line for the person who waits."""
    print(line, file=sys.stderr, flush=True)


def run_verb(verb: Callable[[], None]) -> None:
    """Run a verb and end the process: 0, or the exit code of its error after one sentence."""
    try:
        verb()
    except (VerbError, InputError) as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)

"""How every verb speaks: progress and errors for people on stderr, results on stdout.

Colour is for a person at a terminal and comes from here alone. It is off where NO_COLOR is set
(no-color.org), and nothing switches it on elsewhere. Runs on any Python, without a package.
"""

import os
import re
import sys
from collections.abc import Callable
from typing import IO

from scripts.errors import VerbError
from scripts.settings import hidden, put_secrets_aside

INTERRUPTED = 130
BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"
COLOURS = {
    **dict.fromkeys(("error", "failed", "not so"), RED),
    **dict.fromkeys(("warning", "note"), YELLOW),
    **dict.fromkeys(("ok", "passed", "fixed"), GREEN),
}
"""Of the word that a line begins with: `error: …`, or `     ok  …` in a list."""
HEAD = re.compile(rf" *({'|'.join(COLOURS)})(?=:|  )", re.IGNORECASE)


def say(line: str = "") -> None:
    """One line for the person who waits."""
    if head := HEAD.match(line):
        line = styled(head[0], COLOURS[head[1].lower()], sys.stderr) + line[head.end() :]
    print(line, file=sys.stderr, flush=True)


def styled(text: str, style: str, stream: IO[str]) -> str:
    """The text in a colour or bold, where the stream shows such to someone who wants it."""
    if not text or os.environ.get("NO_COLOR") or not is_terminal(stream):
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person looks on, and the cursor can be moved."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def run_verb(verb: Callable[[], None]) -> None:
    """Run a verb and end the process: 0, or the exit code of its error after one sentence."""
    from train.recipe import InputError  # which needs a package

    put_secrets_aside()
    try:
        verb()
    except (VerbError, InputError) as error:
        say(f"error: {hidden(str(error))}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)

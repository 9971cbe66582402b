"""Ask before money is spent or things are deleted: on a terminal, or by YES=1."""

import sys

from scripts.errors import UsageError


def ask(question: str, yes: bool) -> None:
    """Return where the answer is yes; UsageError where it is not, or nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"nobody is here to answer {question!r}: add YES=1. Nothing was changed.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("not confirmed; nothing was changed.")

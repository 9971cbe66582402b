"""The two errors of serve/: one for whoever starts the server, one for whoever calls it.

    StartupError    a setting, model or device is wrong; ends init() with this sentence
    RequestError    this one request cannot be answered; becomes its HTTP status and body

Both carry one sentence with a remedy and are shown without a traceback. Anything else is a bug.
"""

import difflib
from collections.abc import Iterable


class StartupError(Exception):
    """The server cannot start, and only whoever started it can mend that."""


class RequestError(Exception):
    """A request that is refused: status, sentence, the field at fault, and when to come again."""

    def __init__(
        self,
        status: int,
        sentence: str,
        field: str | None = None,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.field = field
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """The JSON answer. It repeats status and Retry-After: Azure's front end replaces both."""
        error: dict[str, object] = {"code": self.status, "message": self.sentence}
        if self.field is not None:
            error["field"] = self.field
        if self.retry_after is not None:
            error["retry_after"] = self.retry_after
        return {"error": error}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` for the nearest known name, or the list of them where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known are {', '.join(names)}."

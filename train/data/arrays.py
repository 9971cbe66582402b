"""The objects of one large JSON array, one after another, without holding the array.

Python's own parser reads each element from a buffer that grows only while an element is cut off,
so values are those of `json.loads` and memory is bounded by the largest element.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from train.errors import InputError

CHUNK = 1 << 20
"""Characters read at a time."""
BLANK = re.compile(r"[ \t\r\n]*")


def elements(file: Path, stream: IO[str], longest: int) -> Iterator[tuple[Any, int]]:
    """Each element and its length in characters.

    Raises InputError where the text is not JSON: what follows in an array cannot be trusted then,
    so unlike a bad line this cannot be passed over.
    """
    text = _Text(stream)
    decode = json.JSONDecoder().raw_decode
    number = 0

    def broken(what: str) -> InputError:
        return InputError(
            f"{file}: row {number + 1}: {what}, so the array cannot be read from here; mend it, "
            "or save the rows as JSON Lines."
        )

    try:
        text.skip("[")
        if text.next() == "]":
            return
        while True:
            while True:
                try:
                    value, end = decode(text.held, text.at)
                except ValueError as error:
                    if len(text.held) - text.at > longest or not text.more():
                        raise broken(f"not JSON ({error})") from None
                else:
                    break
            yield value, end - text.at
            number, text.at = number + 1, end
            separator = text.next()
            if separator == "]":
                break
            if separator != ",":
                raise broken(f"{separator or 'the end of the file'} stands where , or ] must")
            text.skip(",")
        text.skip("]")
        if text.next():
            raise broken("text after the end of the array")
    except UnicodeDecodeError as error:
        raise broken(f"not UTF-8 ({error.reason})") from None
    except RecursionError:
        raise broken("nested too deeply") from None


class _Text:
    """The part of a stream that is still needed: `held` from `at` on."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.held, self.at = stream, "", 0

    def more(self) -> bool:
        """Read on, twice as much each time that an element is still cut off; False at the end."""
        rest = self.held[self.at :]
        read = self.stream.read(max(CHUNK, len(rest)))
        self.held, self.at = rest + read, 0
        return bool(read)

    def next(self) -> str:
        """The next character that is not blank, without taking it; empty at the end."""
        while True:
            match = BLANK.match(self.held, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.held) or not self.more():
                return self.held[self.at : self.at + 1]

    def skip(self, character: str) -> None:
        """Take `character`, which comes next, and the blanks around it."""
        if self.next() == character:
            self.at += 1
            self.next()

"""How many tokens a file of rows has, which is what training on Azure OpenAI is billed by.

    count(Path("train.jsonl"), "gpt-4.1-mini-2025-04-14").total

tiktoken counts as the service does, with a table that it downloads once from a public storage
account. Where that is not to be had (offline, in a rehearsal) the bytes are divided by three, which
no text that we know exceeds: English has four bytes a token, Japanese three.
"""

import functools
import hashlib
import json
import math
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken

ENCODING = "o200k_base"
"""Of all models that Azure OpenAI fine-tunes today (gpt-4o and later)."""
TABLE_URL = f"https://openaipublic.blob.core.windows.net/encodings/{ENCODING}.tiktoken"
BYTES_A_TOKEN = 3
EACH_MESSAGE = 4
"""Tokens that mark a message's beginning, role and end."""
EACH_IMAGE = 1105
"""Of a picture of 1024 x 1024 in high detail; the service counts by its size."""
WAIT_SECONDS = 20.0
"""For the table's download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Of one epoch."""

    total: int
    longest: int
    """Of one row; 0 where it is an estimate of the whole file."""
    how: str
    """`counted by o200k_base`, or how they were estimated."""

    @property
    def exact(self) -> bool:
        return self.longest > 0


def count(path: Path, *, download: bool) -> Tokens:
    """The tokens of a file of chat rows; `download` allows to fetch the table."""
    encoding = _encoding(download)
    if encoding is None:
        return estimate(path.stat().st_size)
    total = longest = 0
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                row = sum(_message(encoding, turn) for turn in json.loads(line)["messages"])
                total += row
                longest = max(longest, row)
    return Tokens(total=total, longest=longest, how=f"counted by {ENCODING}")


def estimate(size: int) -> Tokens:
    """From the bytes alone."""
    total = math.ceil(size / BYTES_A_TOKEN)
    return Tokens(total=total, longest=0, how=f"estimated, {BYTES_A_TOKEN} bytes a token")


def _message(encoding: "tiktoken.Encoding", turn: dict[str, Any]) -> int:
    content = turn.get("content") or ""
    texts = [content] if isinstance(content, str) else [p.get("text", "") for p in content]
    images = 0 if isinstance(content, str) else sum(p["type"] == "image_url" for p in content)
    if turn.get("tool_calls"):
        texts.append(json.dumps(turn["tool_calls"], ensure_ascii=False))
    length = sum(len(encoding.encode(text, disallowed_special=())) for text in texts)
    return length + EACH_MESSAGE + EACH_IMAGE * images


def is_cached() -> bool:
    """Whether tiktoken has the table on this machine."""
    environ = os.environ
    folder = environ.get("TIKTOKEN_CACHE_DIR") or environ.get("DATA_GYM_CACHE_DIR")
    place = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    name = hashlib.sha1(TABLE_URL.encode(), usedforsecurity=False).hexdigest()
    return (place / name).is_file()


def _encoding(download: bool) -> "tiktoken.Encoding | None":
    return _load() if is_cached() or download else None


@functools.cache
def _load() -> "tiktoken.Encoding | None":
    """The table; None where it does not come in time: tiktoken itself would wait for ever."""
    found: list[Any] = []

    def get() -> None:
        try:
            import tiktoken

            found.append(tiktoken.get_encoding(ENCODING))
        except Exception:  # noqa: S110 - whatever keeps it from here, the estimate serves
            pass

    thread = threading.Thread(target=get, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)
    return found[0] if found else None

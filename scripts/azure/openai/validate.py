"""Whether Azure OpenAI will take a file of rows, before anything is uploaded.

    facts = check(Path("train.jsonl"))            # UsageError names the first bad lines
    path = with_bom(Path("mine.jsonl"), folder)   # a copy that begins with the BOM

The service reads chat rows as JSONL in UTF-8 that begins with a byte-order mark, at least 10 of
them and less than 512 MB a file, and says most of this only when the job has failed
(https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning, read 2026-11-21).
"""

import codecs
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.errors import UsageError

LEAST_ROWS = 10
MOST_BYTES = 512_000_000
ROLES = ("system", "developer", "user", "assistant", "tool")
PARTS = ("text", "image_url")
SHOWN = 3
"""Bad lines that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is in a file that the service takes."""

    rows: int
    bytes: int
    images: int
    """Rows with pictures."""
    weighted: int
    """Answers that are context only (weight 0)."""


def check(path: Path, *, least: int = LEAST_ROWS) -> Facts:
    """Read every row; UsageError says what the service would refuse, with the first lines of it.

    `least` rows must be there: LEAST_ROWS to train, one to validate.
    """
    size = path.stat().st_size
    if size >= MOST_BYTES:
        raise UsageError(
            f"{path} has {size / 1e6:.0f} MB: Azure OpenAI takes less than 512 MB a file; use "
            "fewer rows."
        )
    with path.open("rb") as file:
        marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    if not marked:
        raise UsageError(
            f"{path} does not begin with a byte-order mark, which Azure OpenAI asks for: name it "
            "in data.train with data.form: azure_openai, and it is written with one."
        )
    rows = images = weighted = 0
    bad: list[str] = []
    for number, line in _lines(path):
        if not line.strip():
            continue
        rows += 1
        try:
            row = json.loads(line)
            wrong = wrong_with(row)
        except ValueError as error:
            row, wrong = {}, f"it is no JSON ({error})"
        if wrong:
            bad.append(f"line {number}: {wrong}")
            if len(bad) >= SHOWN:
                break
            continue
        images += has_image(row)
        weighted += sum(turn.get("weight") == 0 for turn in row["messages"])
    if bad:
        raise UsageError(
            f"{path} has rows that Azure OpenAI refuses; correct or drop them: {'; '.join(bad)}."
        )
    if rows < least:
        raise UsageError(f"{path} has {rows} rows: Azure OpenAI takes at least {least}; add rows.")
    return Facts(rows=rows, bytes=size, images=images, weighted=weighted)


def wrong_with(row: Any) -> str:
    """What the service would say of a row; empty where nothing is wrong."""
    turns = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not turns:
        return "it has no messages (chat format)"
    learned = 0
    for place, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            role = turn.get("role") if isinstance(turn, dict) else turn
            return f"message {place} has the role {role!r}; known are {', '.join(ROLES)}"
        weight = turn.get("weight")
        if "weight" in turn:
            if turn["role"] != "assistant":
                return f"message {place} has a weight, which only assistant messages have"
            if isinstance(weight, bool) or weight not in (0, 1):
                return f"message {place} has the weight {weight!r}; it must be 0 or 1"
        if wrong := _content(turn):
            return f"message {place} {wrong}"
        learned += turn["role"] == "assistant" and weight != 0
    if turns[-1]["role"] != "assistant":
        return "its last message is not the assistant's"
    return "" if learned else "every answer has the weight 0, so nothing is learned"


def _content(turn: dict[str, Any]) -> str:
    content = turn.get("content")
    if isinstance(content, str) and content:
        return ""
    if content is None and turn["role"] == "assistant" and turn.get("tool_calls"):
        return ""
    if not isinstance(content, list) or not content:
        return "has no text"
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in PARTS:
            return f"has a part of the kind {kind!r}; known are {', '.join(PARTS)}"
        if kind == "text" and not isinstance(part.get("text"), str):
            return "has a text part without text"
        if kind == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else None
            if not isinstance(url, str) or not url.startswith(("https://", "data:image/")):
                return "has a picture that is neither https:// nor data:image/"
            if turn["role"] == "assistant":
                return "is an answer with a picture; answers are text"
    return ""


def has_image(row: dict[str, Any]) -> bool:
    """Whether a picture is among the row's messages."""
    return any(
        isinstance(part, dict) and part.get("type") == "image_url"
        for turn in row.get("messages") or ()
        if isinstance(turn, dict) and isinstance(turn.get("content"), list)
        for part in turn["content"]
    )


def is_vision(path: Path) -> bool:
    """Whether the file's first row that can be read has a picture: train/ cannot learn such."""
    for _, line in _lines(path):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                return False
            return isinstance(row, dict) and has_image(row)
    return False


def with_bom(path: Path, folder: Path) -> Path:
    """The file itself where it has the mark, else a copy in `folder` that has."""
    with path.open("rb") as source:
        if source.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            return path
        source.seek(0)
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / path.name
        part = made.with_name(f"{made.name}.part")
        with part.open("wb") as file:
            file.write(codecs.BOM_UTF8)
            shutil.copyfileobj(source, file)
        os.replace(part, made)
    return made


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from enumerate(file, 1)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}).") from None

"""What a file of rows has to be, and the same rows as a training of ours reads them.

rows.encoding_flaw(path)       why the file is none at all: no mark of UTF-8, no JSON
rows.flaws(path)               what is wrong with the examples; empty where they can be trained
rows.rewrite(path, target)     without the mark, images left out; the number of characters
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEAST = 10
"""Examples that a training needs."""
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MOST_TOLD = 5
"""Flaws that are told; one mistake is often made on every line."""


def encoding_flaw(path: Path) -> str:
    """Why the file cannot be read as rows; empty where it can."""
    data = path.read_bytes()
    if not data.startswith(codecs.BOM_UTF8):
        return (
            "The file is not encoded in UTF-8 with a byte-order mark (BOM), which training and "
            "validation files must be."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        return f"The file is no UTF-8: byte {problem.start} cannot be read."
    for number, line in _lines(text):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            return f"Line {number} is no JSON object."
    return ""


def flaws(path: Path, *, least: int = LEAST) -> list[str]:
    """What is wrong with the examples of a file that can be read."""
    found: list[str] = []
    count = 0
    for number, row in _rows(path):
        count += 1
        if len(found) < MOST_TOLD:
            found += [f"Line {number}, {flaw}" for flaw in _row_flaws(row)]
    if count < least:
        found.insert(
            0, f"The file has {count} example(s), but must have at least {least} examples."
        )
    return found[:MOST_TOLD]


def rewrite(path: Path, target: Path) -> int:
    """Write the rows without the mark and with the words of their contents only; returns how many
    characters the contents have."""
    characters = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8") as file:
        for _, row in _rows(path):
            for message in row["messages"]:
                if isinstance(message.get("content"), list):
                    message["content"] = _words(message["content"])
                characters += len(message.get("content") or "")
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return characters


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path.read_text(encoding="utf-8-sig")):
        yield number, json.loads(line)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Not by splitlines, which also ends lines at characters that JSON may hold."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _row_flaws(row: dict[str, Any]) -> Iterator[str]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield 'key "messages": must be a list of at least one message.'
        return
    for place, message in enumerate(messages):
        at = f"message {place}, key"
        if not isinstance(message, dict):
            yield f"message {place}: must be an object."
            continue
        role = message.get("role")
        if role not in ROLES:
            yield f'{at} "role": must be one of {", ".join(ROLES)}.'
        if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
            yield f'{at} "weight": must be 0 or 1, in a message of the assistant.'
        called = message.get("tool_calls") or message.get("function_call")
        if not isinstance(message.get("content"), str | list) and not called:
            yield f'{at} "content": must be a string or a list of parts.'
    if not any(isinstance(m, dict) and m.get("role") == "assistant" for m in messages):
        yield 'key "messages": must have a message of the assistant.'


def _words(parts: list[Any]) -> str:
    """The text of a content's parts; the tiny model sees no images."""
    return "\n".join(str(p["text"]) for p in parts if isinstance(p, dict) and "text" in p)

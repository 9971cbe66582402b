"""Models other than gpt-oss: generated ids → parts of the answer, as they come.

    <think>…</think>final                                  reasoning apart from the rest
    <tool_call>{"name": …, "arguments": {…}}</tool_call>   Hermes, Qwen
    [TOOL_CALLS][{"name": …, "arguments": {…}}]            Mistral

Markers are read as text, since not every model has them as tokens. Thinking counts only where the
answer starts with it, and without an end all of it is reasoning. Tool calls are looked for only
with tools, and after the thinking; each is given whole. What looks like a call and is none, or is
cut off, stays text. Pure; no torch.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from serve.detokenize import Decode, Detokenizer
from serve.parts import Parts, started

OPEN, CLOSE = "<think>", "</think>"
CALL, CALLED = "<tool_call>", "</tool_call>"
CALLS = "[TOOL_CALLS]"


def hidden_markers(added: Mapping[int, Any]) -> dict[int, str]:
    """Those that decode leaves out as special tokens, from tokenizer.added_tokens_decoder."""
    markers = (OPEN, CLOSE, CALL, CALLED, CALLS)
    return {i: t.content for i, t in added.items() if t.special and t.content in markers}


class ThinkingReader:
    """Reads one answer into `parts`."""

    def __init__(
        self,
        decode: Decode,
        parts: Parts,
        *,
        opens_thinking: bool,
        tools: bool,
        hidden: Mapping[int, str],
    ) -> None:
        self.reasoning_tokens = 0
        """Up to the end of the thinking, markers included."""
        self._parts = parts
        self._opened = opens_thinking
        self._calls = CallReader(parts) if tools else None
        self._hidden = hidden
        self._detokenizer = Detokenizer(decode)
        self._state: Literal["start", "thinking", "final"] = "start"
        self._held = ""

    def feed(self, ids: Sequence[int]) -> None:
        run: list[int] = []
        for token in ids:
            if token not in self._hidden:
                run.append(token)
                continue
            self._read(run)
            run = []
            self._read_text(self._detokenizer.finish() + self._hidden[token], 1)
        self._read(run)

    def finish(self, *, complete: bool) -> None:
        self._read_text(self._detokenizer.finish(complete=complete), 0)
        held, self._held = self._held, ""
        if self._state == "thinking" or (self._state == "start" and self._opened):
            self._parts.say("reasoning", held)
        else:
            self.reasoning_tokens = self.reasoning_tokens if self._state == "final" else 0
            self._finally(held)
        if self._calls:
            self._calls.finish()

    def _read(self, run: list[int]) -> None:
        if not run:
            return
        if self._state == "final":
            self._finally(self._detokenizer.feed(run))
            return
        earlier, held = self._detokenizer.copy(), self._held
        closes = self._read_text(self._detokenizer.feed(run), len(run))
        if closes:
            sizes = range(1, len(run))
            thought = 1 + bisect_left(
                sizes, True, key=lambda n: CLOSE in held + earlier.copy().feed(run[:n])
            )
            self.reasoning_tokens += thought - len(run)

    def _read_text(self, text: str, tokens: int) -> bool:
        """Whether the thinking ends in it; counts the tokens as if it did only at their end."""
        self._held += text
        before = self._state
        if self._state == "start":
            self._start()
        thinks = self._state == "thinking"
        if thinks:
            self._think()
        closes = thinks and self._state == "final"
        if self._state == "final":
            held, self._held = self._held, ""
            self._finally(held)
        if before == "start" and self._state == "final" and not closes:
            self.reasoning_tokens = 0  # there was no thinking after all
        elif before != "final":
            self.reasoning_tokens += tokens
        return closes

    def _start(self) -> None:
        rest = self._held.lstrip()
        if rest.startswith(OPEN) or (self._opened and not OPEN.startswith(rest)):
            self._held = rest.removeprefix(OPEN)
            self._state = "thinking"
        elif not OPEN.startswith(rest):
            self._state = "final"

    def _think(self) -> None:
        thought, closed, rest = self._held.partition(CLOSE)
        if closed:
            self._state = "final"
        else:
            sure = len(thought) - started(thought, (CLOSE,))
            thought, rest = thought[:sure], thought[sure:]
        self._parts.say("reasoning", thought)
        self._held = rest

    def _finally(self, text: str) -> None:
        if self._calls:
            self._calls.feed(text)
        else:
            self._parts.say("output", text)


class CallReader:
    """Final text → output and tool calls."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._held = ""
        self._inside: str | None = None
        """The marker after which `_held` stands."""

    def feed(self, text: str) -> None:
        self._held += text
        going = True
        while going:
            if self._inside is None:
                going = self._open()
            elif self._inside == CALL:
                going = self._close_one()
            else:
                going = self._close_list(text)

    def finish(self) -> None:
        """Where only the last marker is missing, it is a call; any other rest is text."""
        held, self._held = self._held, ""
        calls = parse_calls(held) if self._inside == CALL else None
        self._add(calls, (self._inside or "") + held)

    def _open(self) -> bool:
        found = [(at, m) for m in (CALL, CALLS) if (at := self._held.find(m)) >= 0]
        if found:
            at, self._inside = min(found)
            rest = self._held[at + len(self._inside) :]
        else:
            at = len(self._held) - started(self._held, (CALL, CALLS))
            rest = self._held[at:]
        self._parts.say("output", self._held[:at])
        self._held = rest
        return bool(found)

    def _close_one(self) -> bool:
        body, closed, rest = self._held.partition(CALLED)
        if closed:
            self._add(parse_calls(body), CALL + body + closed)
            self._held = rest
        return bool(closed)

    def _close_list(self, new: str) -> bool:
        rest = self._held.lstrip()
        if rest and not rest.startswith("["):
            self._add(None, CALLS)
            return True
        if "]" not in new:
            return False
        try:
            _, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            return False
        self._add(parse_calls(rest[:end]), CALLS + rest[:end])
        self._held = rest[end:]
        return True

    def _add(self, calls: list[tuple[str, str]] | None, raw: str) -> None:
        """The calls, or where there are none, the text that they would have been."""
        self._inside = None
        if calls is None:
            self._parts.say("output", raw)
            return
        for name, arguments in calls:
            self._parts.call(name)
            self._parts.argue(arguments)
        self._parts.begin("output")


def parse_calls(text: str) -> list[tuple[str, str]] | None:
    """(name, arguments as JSON) of one call or a list of them; None where it is neither."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    calls = []
    for item in value if isinstance(value, list) else [value]:
        if not (isinstance(item, dict) and isinstance(item.get("name"), str) and item["name"]):
            return None
        arguments = item.get("arguments", {})
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append((_sound(item["name"]), _sound(arguments)))
    return calls or None


def _sound(text: str) -> str:
    """Without half surrogate pairs, which JSON can write and UTF-8 cannot."""
    return text.encode(errors="replace").decode()

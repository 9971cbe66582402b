"""The parts of one answer, put together as they come: reasoning, output, tool calls.

    parts = Parts(stop=("END",))
    parts.begin("reasoning"); parts.say("reasoning", "why ")
    parts.call("get_weather"); parts.argue("{}")
    parts.take() → the Deltas since the last time

Each message of a kind is stripped, and messages of one kind are joined by blank lines; whitespace
that may turn out to be the end is held back, so that Deltas never take anything back. Stop texts
are looked for in the output alone. It knows neither tokens nor markers; serve/reader.py does.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from serve.answer import Delta, ToolCall

JOIN = "\n\n"
"""Between two messages of one kind."""


def started(text: str, markers: Sequence[str]) -> int:
    """How many letters at the end of `text` may be the beginning of a marker."""
    longest = 0
    for marker in markers:
        sizes = range(min(len(marker) - 1, len(text)), longest, -1)
        longest = next((n for n in sizes if text.endswith(marker[:n])), longest)
    return longest


class Flow:
    """One text that grows: what comes in raw goes out stripped and joined, up to a stop text."""

    def __init__(self, *, stop: Sequence[str] = (), plain: bool = False) -> None:
        self._stop = stop
        self._plain = plain
        self._out: list[str] = []
        self._held = ""
        """What came and is not out: whitespace, and what may be the beginning of a stop text."""
        self._fresh = True
        self._any = False
        self.stopped = False

    @property
    def text(self) -> str:
        return "".join(self._out)

    def begin(self) -> None:
        """A new message."""
        self._held = self._held.rstrip()
        self._fresh = True

    def add(self, text: str) -> str:
        """What is certain to go out now."""
        if self._fresh and not self._plain:
            text = text.lstrip()
            if not text:
                return ""
            if self._any:
                text = JOIN + text
        self._fresh, self._any = False, True
        self._held += text
        # the one that ends first, as if letters came one by one; of two, the one that began first
        found = [(at + len(s), at) for s in self._stop if (at := self._held.find(s)) >= 0]
        self.stopped = bool(found)
        ready = self._held[: min(found)[1] if found else -started(self._held, self._stop) or None]
        ready = ready if self._plain else ready.rstrip()
        self._held = "" if found else self._held[len(ready) :]
        return self._emit(ready)

    def end(self) -> str:
        """The rest, when nothing more comes."""
        rest, self._held = self._held, ""
        return self._emit(rest if self._plain else rest.rstrip())

    def _emit(self, text: str) -> str:
        if text:
            self._out.append(text)
        return text


class Parts:
    """Everything of one answer. After a stop text it takes nothing more."""

    def __init__(self, *, stop: Sequence[str] = (), plain: bool = False) -> None:
        """`plain`: the output exactly as it comes, nothing stripped."""
        self._flows = {"output": Flow(stop=stop, plain=plain), "reasoning": Flow()}
        self._calls: list[tuple[ToolCall, Flow]] = []
        self._deltas: list[Delta] = []

    @property
    def stopped(self) -> bool:
        return self._flows["output"].stopped

    @property
    def output(self) -> str:
        return self._flows["output"].text

    @property
    def reasoning(self) -> str | None:
        """None where there was none."""
        return self._flows["reasoning"].text or None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(replace(call, arguments=flow.text) for call, flow in self._calls)

    def begin(self, kind: Literal["output", "reasoning"]) -> None:
        """A new message of this kind."""
        self._flows[kind].begin()

    def say(self, kind: Literal["output", "reasoning"], text: str) -> None:
        if text and not self.stopped:
            self._put(Delta(kind=kind, text=self._flows[kind].add(text)))

    def call(self, name: str) -> None:
        """A new tool call."""
        if not self.stopped:
            # nine letters and digits, because Mistral's templates take back no other ids
            made = ToolCall(id=secrets.token_hex(5)[:9], name=name, arguments="")
            self._calls.append((made, Flow()))
            self._put(Delta(kind="tool_call", text="", tool=len(self._calls) - 1, name=name))

    def argue(self, text: str) -> None:
        """More of the latest call's arguments."""
        if text and not self.stopped:
            tool = len(self._calls) - 1
            self._put(Delta(kind="tool_call", text=self._calls[tool][1].add(text), tool=tool))

    def close(self) -> None:
        """Nothing more comes."""
        for kind in ("reasoning", "output"):
            self._put(Delta(kind=kind, text=self._flows[kind].end()))

    def take(self) -> list[Delta]:
        """What is new since the last time."""
        new, self._deltas = self._deltas, []
        return new

    def _put(self, delta: Delta) -> None:
        if not (delta.text or delta.name):
            return
        last = self._deltas[-1] if self._deltas else None
        if last and delta.name is None and (last.kind, last.tool) == (delta.kind, delta.tool):
            self._deltas[-1] = replace(last, text=last.text + delta.text)
        else:
            self._deltas.append(delta)

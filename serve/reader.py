"""Generated token ids → Deltas as they come, whichever format the model speaks.

    reader = Reader(decode=writer.read, markers=Markers.of(vocabulary), stop=("END",))
    for ids in ...: deltas = reader.feed(ids)      # any grouping, from one at a time to all at once
    deltas = reader.finish(complete=True)
    reader.output, reader.reasoning, reader.tool_calls

However the ids are grouped, the joined Deltas are the same, and are what the properties give. When
`stopped` is true a stop text was found: the caller cancels the generation, and what is still fed
changes nothing. Harmony is in harmony.py, <think> and tool calls of other models in thinking.py;
nothing here reads a chat template. One per answer; not thread-safe. Pure; no torch.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from serve.answer import Delta, ToolCall
from serve.detokenize import Decode, Detokenizer
from serve.harmony import HarmonyReader, Markers
from serve.parts import Parts
from serve.thinking import ThinkingReader

NONE: Mapping[int, str] = MappingProxyType({})


class _Format(Protocol):
    reasoning_tokens: int

    def feed(self, ids: Sequence[int]) -> None: ...

    def finish(self, *, complete: bool) -> None: ...


class PlainReader:
    """Raw completions: the output is the text as decoded."""

    reasoning_tokens = 0

    def __init__(self, decode: Decode, parts: Parts, *, before: Sequence[int]) -> None:
        self._parts = parts
        self._text = Detokenizer(decode, before)

    def feed(self, ids: Sequence[int]) -> None:
        self._parts.say("output", self._text.feed(ids))

    def finish(self, *, complete: bool) -> None:
        self._parts.say("output", self._text.finish(complete=complete))


class Reader:
    """Reads one answer."""

    def __init__(
        self,
        *,
        decode: Decode,
        markers: Markers | None,
        opens_thinking: bool = False,
        stop: Sequence[str] = (),
        tools: bool = False,
        hidden: Mapping[int, str] = NONE,
        plain: bool = False,
        before: Sequence[int] = (),
    ) -> None:
        """`opens_thinking`: the prompt ends within <think>. `tools`: the request named some.

        `hidden`: thinking.hidden_markers of the tokenizer. `plain`: a raw completion, of the prompt
        ids `before`; no format is read and nothing is stripped.
        """
        self._parts = Parts(stop=stop, plain=plain)
        self._format: _Format
        if plain:
            self._format = PlainReader(decode, self._parts, before=before)
        elif markers is not None:
            self._format = HarmonyReader(decode, markers, self._parts, tools=tools)
        else:
            self._format = ThinkingReader(
                decode, self._parts, opens_thinking=opens_thinking, tools=tools, hidden=hidden
            )

    def feed(self, ids: Sequence[int]) -> list[Delta]:
        """What is certain after these."""
        if not self.stopped:
            self._format.feed(ids)
        return self._parts.take()

    def finish(self, *, complete: bool) -> list[Delta]:
        """The rest. Not `complete`: the answer was cut off, so half a character is dropped."""
        self._format.finish(complete=complete)
        self._parts.close()
        return self._parts.take()

    @property
    def output(self) -> str:
        return self._parts.output

    @property
    def reasoning(self) -> str | None:
        """None where there was none."""
        return self._parts.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """So far. A Delta's `tool` is a place in it, so the id is known with the first Delta."""
        return self._parts.tool_calls

    @property
    def reasoning_tokens(self) -> int:
        return self._format.reasoning_tokens

    @property
    def stopped(self) -> bool:
        """A stop text was found."""
        return self._parts.stopped

"""Harmony, the format of gpt-oss: generated ids → parts of the answer, as they come.

    <|channel|>analysis<|message|>…<|end|>
    <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}<|call|>
    <|start|>assistant<|channel|>final<|message|>…<|return|>

Messages are told apart by ids, so that a model writing the letters "<|end|>" ends nothing. Whatever
a model emits is read without error: no final yet (truncated), no channel, markers out of order.
With tools, a message to functions.NAME is a tool call, wherever its header names the recipient.
All other text on channels other than final is reasoning, and so are preambles: text on commentary
to nobody, which the format means for the user, but which comes before the answer and not in it.
Pure; no torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serve.detokenize import Decode, Detokenizer
from serve.parts import Parts

FINAL = "final"
FUNCTIONS = "functions."
TO = "to="
RECIPIENT = re.compile(rf"(?:^|\s){TO}(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """Ids of Harmony's control tokens."""

    start: int
    end: int
    message: int
    channel: int
    constrain: int
    stops: frozenset[int]
    """<|return|> and <|call|>: both end a turn."""

    @classmethod
    def of(cls, vocabulary: Mapping[str, int]) -> "Markers | None":
        """From a tokenizer's vocabulary; None for a model that does not speak Harmony."""
        names = ("start", "end", "message", "channel", "constrain")
        ids = {name: vocabulary.get(f"<|{name}|>") for name in (*names, "return", "call")}
        known = {name: number for name, number in ids.items() if number is not None}
        if len(known) < len(ids):
            return None
        stops = frozenset((known.pop("return"), known.pop("call")))
        return cls(stops=stops, **known)


class HarmonyReader:
    """Reads one answer into `parts`. The prompt ends in `<|start|>assistant`: a header is first."""

    def __init__(self, decode: Decode, markers: Markers, parts: Parts, *, tools: bool) -> None:
        self.reasoning_tokens = 0
        """Those of its text; markers and headers are not counted."""
        self._decode = decode
        self._markers = markers
        self._parts = parts
        self._tools = tools
        self._marked = {markers.start, markers.end, markers.message, markers.channel}
        self._marked |= {markers.constrain, *markers.stops}
        # what ids are part of; bare is before any marker, format follows <|constrain|>
        self._state: Literal["bare", "role", "channel", "format", "body"] = "bare"
        self._header: list[int] = []
        self._bare = ""
        self._text = Detokenizer(decode)
        self._goes_to: Literal["output", "reasoning", "tool_call"] | None = "output"
        self._reset()

    def feed(self, ids: Sequence[int]) -> None:
        run: list[int] = []
        for token in ids:
            if token not in self._marked:
                run.append(token)
                continue
            self._read(run)
            run = []
            if self._parts.stopped:
                return
            self._mark(token)
        self._read(run)

    def finish(self, *, complete: bool) -> None:
        if self._state in ("bare", "body"):
            self._end_text(complete=complete)

    def _reset(self) -> None:
        self._role, self._channel = "assistant", FINAL
        self._recipient: str | None = None

    def _read(self, run: list[int]) -> None:
        """Ids without markers."""
        if not run:
            return
        if self._state in ("role", "channel"):
            self._header += run
        elif self._state == "bare":
            self._read_bare(self._text.feed(run))
        elif self._state == "body" and self._goes_to is not None:
            self.reasoning_tokens += len(run) if self._goes_to == "reasoning" else 0
            self._say(self._text.feed(run))

    def _read_bare(self, text: str) -> None:
        """An answer without header, or a header's recipient, as soon as it is clear which."""
        self._bare += text
        begun = self._bare.lstrip()[: len(TO)]
        if not TO.startswith(begun):
            self._parts.say("output", self._bare)
            self._bare = ""
            self._state = "body"

    def _say(self, text: str) -> None:
        if self._goes_to == "tool_call":
            self._parts.argue(text)
        elif self._goes_to is not None:
            self._parts.say(self._goes_to, text)

    def _mark(self, token: int) -> None:
        header = self._decode(self._header).strip() if self._header else ""
        if token == self._markers.constrain:
            if self._state == "channel":
                self._name_channel(header)
                self._header, self._state = [], "format"
            return
        if self._state == "role" and header:
            self._role = header
            self._address(header)
        elif self._state == "channel":
            self._name_channel(header)
        elif self._state in ("bare", "body"):
            self._end_text(complete=True)
        self._header = []
        if token == self._markers.message:
            self._begin_text()
        elif token == self._markers.channel:
            self._state = "channel"
        else:
            self._state = "role"
            self._reset()

    def _name_channel(self, header: str) -> None:
        """`commentary`, and perhaps a recipient, of "commentary to=functions.x json"."""
        words = header.lower().split()
        self._channel = words[0] if words else FINAL
        self._address(header)

    def _address(self, header: str) -> None:
        if found := RECIPIENT.search(header):
            self._recipient = found[1]

    def _begin_text(self) -> None:
        self._state = "body"
        self._text = Detokenizer(self._decode)
        recipient, self._recipient = self._recipient or "", None
        name = recipient.removeprefix(FUNCTIONS)
        if not self._role.startswith("assistant"):
            self._goes_to = None  # a turn of somebody else, made up
        elif self._tools and name and name != recipient:
            self._goes_to = "tool_call"
            self._parts.call(name)
        else:
            self._goes_to = "output" if self._channel == FINAL else "reasoning"
            self._parts.begin(self._goes_to)

    def _end_text(self, *, complete: bool) -> None:
        rest = self._text.finish(complete=complete)
        if self._state == "body":
            self._say(rest)
            return
        bare = (self._bare + rest).strip()
        if bare.startswith(TO):
            self._address(bare)
        else:
            self._parts.say("output", bare)

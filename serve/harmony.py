"""Generated ids → reasoning and final text apart.

Harmony (gpt-oss):  <|channel|>analysis<|message|>…<|end|>
                    <|start|>assistant<|channel|>final<|message|>…<|return|>
<think> models:     <think>…</think>final
all others:         everything is final

Split by ids where the model has Harmony's, so that a model writing the letters "<|end|>" ends
nothing. Whatever a model emits is read without error: no final yet (truncated), no channel,
markers out of order. It parses no tool calls: text on a channel other than final counts as
reasoning. Pure; no torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

FINAL = "final"
OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said, and what it thought before."""

    output: str
    reasoning: str | None
    """None where there was none."""


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


def split(
    ids: Sequence[int],
    read: Callable[[Sequence[int]], str],
    markers: Markers | None,
    *,
    opens_thinking: bool = False,
) -> Answer:
    """Reasoning and final text of an answer; `read` decodes ids."""
    if markers is None:
        return split_think(read(ids), opens_thinking=opens_thinking)
    parts = _messages(ids, read, markers)
    return Answer(
        output=_join(text for channel, text in parts if channel == FINAL),
        reasoning=_join(text for channel, text in parts if channel != FINAL) or None,
    )


def split_think(text: str, *, opens_thinking: bool) -> Answer:
    """Split at </think>, for text that starts inside the block or opens one."""
    rest = text.lstrip()
    if not (opens_thinking or rest.startswith(OPEN)):
        return Answer(output=text.strip(), reasoning=None)
    thought, closed, final = rest.removeprefix(OPEN).partition(CLOSE)
    return Answer(output=final.strip() if closed else "", reasoning=thought.strip() or None)


def _messages(
    ids: Sequence[int], read: Callable[[Sequence[int]], str], markers: Markers
) -> list[tuple[str, str]]:
    """(channel, text) in order. The prompt ends in `<|start|>assistant`: a header comes first."""
    found: list[tuple[str, str]] = []
    state = (
        "bare"  # nothing marked yet; then role, channel, format or body: what the ids are part of
    )
    seen: list[int] = []
    role, channel = "assistant", FINAL

    marked = {markers.start, markers.end, markers.message, markers.channel, *markers.stops}

    for token in (*ids, markers.end):
        if token == markers.constrain and state == "channel":
            channel, state = _name(read(seen)), "format"
            seen.clear()
        if token not in marked:
            if token != markers.constrain:
                seen.append(token)
            continue
        text = read(seen).strip()
        seen.clear()
        if state == "role" and text:
            role = text
        elif state == "channel":
            channel = _name(text)
        elif state == "bare" and text.startswith("to="):
            pass  # a header's recipient
        elif state in ("bare", "body") and text and role.startswith("assistant"):
            found.append((channel, text))
        if token == markers.message:
            state = "body"
        elif token == markers.channel:
            state = "channel"
        else:
            state = "role"
            role, channel = "assistant", FINAL
    return found


def _name(header: str) -> str:
    """`analysis` of "analysis", `commentary` of "commentary to=functions.x json"."""
    words = header.lower().split()
    return words[0] if words else FINAL


def _join(texts: Iterable[str]) -> str:
    return "\n\n".join(texts)

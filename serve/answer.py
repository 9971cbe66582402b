"""What request handling says back: deltas while the answer comes, choices when it is whole.

Dialects (serve/dialects/) turn these into their own JSON; answering.py makes them from tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serve.engine import FinishReason, Logprob

Kind = Literal["reasoning", "output", "tool_call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A new piece of text. Pieces of one kind, joined, are that part of the answer."""

    kind: Kind
    text: str
    """For a tool call, JSON text of its arguments."""
    tool: int = 0
    """Which tool call, counted from 0."""
    name: str | None = None
    """The function's name, in the first delta of a tool call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function that the model asks to be called."""

    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it, which may be broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One token of the answer as the logprobs of a reply show it."""

    token: str
    value: Logprob
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One whole answer."""

    index: int
    output: str
    reasoning: str | None
    """None where there was none."""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason
    completion_tokens: int
    reasoning_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Everything that a reply is made of."""

    id: str
    """The request's id, which also stands in the log."""
    created: int
    """Seconds since 1970."""
    model: str
    prompt_tokens: int
    choices: Sequence[Choice]

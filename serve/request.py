"""What is asked for, whichever dialect asked (serve/dialects/): one frozen GenerationRequest.

It knows neither the tokenizer nor the model's own defaults; prompt.py does. Everything in it is
validated: names, types and ranges by the dialect, sizes by prompt.py, and what the engine at hand
cannot do by service.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

DEFAULT_MAX_NEW_TOKENS = 512
MIN_TEMPERATURE = 0.001
"""Below it, logits divided by the temperature overflow; for no randomness, do not sample."""
MIN_TOP_P = 1e-9
MAX_LOGPROBS = 20
MAX_CHOICES = 16
MAX_STOPS = 16

Role = Literal["user", "assistant", "tool"]
Effort = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A tool call of an earlier assistant turn."""

    id: str
    name: str
    arguments: str
    """JSON text of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of the conversation; system text is not among them."""

    role: Role
    content: str
    """May be empty only beside tool calls, and as a tool's result."""
    thinking: str | None = None
    """Reasoning of an assistant turn; the chat template decides whether later turns see it."""
    tool_calls: tuple[Called, ...] = ()
    name: str | None = None
    """Of a tool turn: the function whose result this is."""
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt, or one conversation, and how to answer it."""

    messages: tuple[Message, ...] = ()
    """Ends with a user or tool turn. Empty where `text` or `ids` is given."""
    text: str | None = None
    """A prompt that is shown to the model as it stands, without chat template."""
    ids: tuple[int, ...] | None = None
    """The same as token ids."""
    system: str | None = None
    """System text that the request names; "" asks for none at all, None leaves it to the model."""
    reasoning_language: str | None = None
    reasoning_effort: Effort | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    """OpenAI's form: {"type": "function", "function": {"name", "description", "parameters"}}."""
    max_new_tokens: int | None = None
    """None is DEFAULT_MAX_NEW_TOKENS, or what the context has left where that is less."""
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Texts that end the final answer, and are not part of it."""
    n: int = 1
    logprobs: int | None = None
    """None is off; 0 the chosen tokens' own; k the k likeliest besides."""
    json_schema: Mapping[str, Any] | None = None
    """What the final answer must keep to; {"type": "object"} for any JSON object."""
    model: str | None = None
    """The served model's name, or an adapter's; None is the model itself."""
    any_model: bool = False
    """A name that is neither is taken as none, as where a deployment's name stands there."""
    echo: bool = False
    """Give the prompt back before the answer (completions only)."""
    stream: bool = False
    stream_usage: bool = False
    """A last event with the token counts."""

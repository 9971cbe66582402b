"""POST /score: the server's own form, and every other that one scoring URI may be sent.

    {"messages": [{"role": "user", "content": "…"}], "max_new_tokens": 64}
    {"prompt": "…", "reasoning_language": "Japanese"}
    [{"prompt": "…"}, {"prompt": "…"}]

The keys decide. `input_data` is the catalogue's form (mlflow.py). `messages` beside a field that
only chat completions have, such as `model` or `max_tokens`, is OpenAI's form (openai_chat.py). A
list is a batch of the form above, answered in order. All else is the form above.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.answer import Choice, Completion, Delta
from serve.dialects import mlflow, openai_chat
from serve.dialects.conversation import MESSAGES, TOOLS, read_messages, read_tools
from serve.dialects.fields import Field, Flag, Integer, Special, Text, read_fields
from serve.dialects.openai_common import tool_calls
from serve.dialects.parsed import Head, Json, Parsed
from serve.dialects.shared import (
    DRAWING,
    REASONING,
    REPETITION,
    STOP,
    TEMPERATURE,
    read_tokens,
    refuse_drawing,
    refuse_two_languages,
)
from serve.dialects.strict_json import as_object, read_json, refuse
from serve.errors import RequestError
from serve.request import DEFAULT_MAX_NEW_TOKENS, GenerationRequest, Message

MAX_BATCH = 64
FIELDS = {
    "messages": Field(
        Special(read_messages, MESSAGES),
        "The conversation; its last message is the user's or a tool's. Either this or prompt.",
    ),
    "prompt": Field(Text(), "A single message from the user. Either this or messages."),
    "system_prompt": Field(
        Text(empty=True), "System text, where messages bring none; empty for none.", "the model's"
    ),
    **REASONING,
    "tools": Field(Special(read_tools, TOOLS), "Functions that the model may ask to be called."),
    "max_new_tokens": Field(
        Integer(1),
        "Longest answer in tokens, reasoning included; up to the model's context.",
        str(DEFAULT_MAX_NEW_TOKENS),
    ),
    "do_sample": Field(Flag(), "Draw tokens instead of taking the likeliest.", "false"),
    "temperature": TEMPERATURE,
    **DRAWING,
    **REPETITION,
    **STOP,
    "stream": Field(Flag(), "Answer by events, while the text is generated.", "false"),
}
ONLY_CHAT = frozenset(openai_chat.FIELDS) - frozenset(FIELDS)


class Score:
    """The dialect of /score."""

    def parse(self, body: bytes, *, context: int) -> Parsed:
        value = read_json(body)
        if isinstance(value, list):
            return _batch(value, context)
        given = as_object(value)
        if "input_data" in given:
            return mlflow.read(given, context=context)
        if "messages" in given and not ONLY_CHAT.isdisjoint(given):
            return openai_chat.read(given, context=context)
        return ScoreParsed(requests=(read(given, context=context),))

    def error_body(self, error: RequestError) -> Json:
        return error.body()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreParsed:
    """One request, or a batch of them."""

    requests: tuple[GenerationRequest | RequestError, ...]
    batch: bool = False

    @property
    def stream(self) -> bool:
        return not self.batch and self._only.stream

    @property
    def _only(self) -> GenerationRequest:
        (request,) = self.requests
        if isinstance(request, RequestError):
            raise request
        return request

    def reply(self, answers: Sequence[Completion | RequestError]) -> Json | list[Json]:
        bodies = [
            answer.body() if isinstance(answer, RequestError) else _whole(request, answer)
            for request, answer in zip(self.requests, answers, strict=True)
        ]
        return bodies if self.batch else bodies[0]

    def events(self, head: Head) -> "ScoreEvents":
        return ScoreEvents(with_tools=bool(self._only.tools))


@dataclass(slots=True, kw_only=True)
class ScoreEvents:
    """`{"reasoning": "…"}`, `{"output": "…"}`, and a last one with finish_reason and usage."""

    with_tools: bool
    done: str | None = None
    last: Json = field(default_factory=dict)
    completion_tokens: int = 0

    def begin(self) -> list[Json]:
        return []

    def delta(self, index: int, delta: Delta) -> list[Json]:
        return [] if delta.kind == "tool_call" else [{delta.kind: delta.text}]

    def end(self, index: int, choice: Choice) -> list[Json]:
        self.last = _end(choice, with_tools=self.with_tools)
        self.completion_tokens = choice.completion_tokens
        return []

    def finish(self, prompt_tokens: int) -> list[Json]:
        return [{**self.last, "usage": _usage(prompt_tokens, self.completion_tokens)}]

    def error(self, error: RequestError) -> list[Json]:
        return [error.body()]


def read(given: Mapping[str, Any], *, context: int) -> GenerationRequest:
    """One request of the server's own form."""
    fields = read_fields(given, FIELDS)
    turns, system = _conversation(fields)
    refuse_two_languages(fields.get("reasoning_language"), system, "reasoning_language")
    if not fields.get("do_sample"):
        refuse_drawing(fields, ("temperature", *DRAWING), "set do_sample to true")
    same = [*REASONING, "tools", "do_sample", "temperature", *DRAWING, *REPETITION, *STOP, "stream"]
    return GenerationRequest(
        messages=turns,
        system=system,
        max_new_tokens=read_tokens(fields, ("max_new_tokens",), context),
        **{name: fields[name] for name in same if name in fields},
    )


def _batch(items: list[Any], context: int) -> ScoreParsed:
    """Every item by itself; one that is refused does not stop the others."""
    if not 1 <= len(items) <= MAX_BATCH:
        refuse(None, f"a batch is a list of 1 to {MAX_BATCH} requests; send several lists.")
    return ScoreParsed(requests=tuple(_item(item, context) for item in items), batch=True)


def _item(item: Any, context: int) -> GenerationRequest | RequestError:
    try:
        if not isinstance(item, dict):
            refuse(None, "each request of a batch must be a JSON object, in braces.")
        request = read(item, context=context)
        if request.stream:
            refuse("stream", "stream is not possible in a batch; send this request by itself.")
        return request
    except RequestError as error:
        return error


def _conversation(fields: Mapping[str, Any]) -> tuple[tuple[Message, ...], str | None]:
    """The turns, and the system text that the request names by either way."""
    if ("prompt" in fields) == ("messages" in fields):
        refuse("prompt", 'send either "prompt" or "messages", and not both.')
    if "prompt" in fields:
        return (Message(role="user", content=fields["prompt"]),), fields.get("system_prompt")
    turns, system = fields["messages"]
    if "system_prompt" in fields and system is not None:
        refuse(
            "system_prompt",
            "system_prompt and a system message both name the system text; send one of them.",
        )
    return turns, fields.get("system_prompt", system)


def _whole(request: GenerationRequest | RequestError, answer: Completion) -> Json:
    (choice,) = answer.choices
    with_tools = isinstance(request, GenerationRequest) and bool(request.tools)
    return {
        "output": choice.output,
        "reasoning": choice.reasoning,
        **_end(choice, with_tools=with_tools),
        "usage": _usage(answer.prompt_tokens, choice.completion_tokens),
    }


def _end(choice: Choice, *, with_tools: bool) -> Json:
    calls = {"tool_calls": tool_calls(choice)} if with_tools else {}
    return {**calls, "finish_reason": choice.finish_reason}


def _usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}

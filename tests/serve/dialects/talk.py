"""Ask a dialect, and a made-up answer for it to show whole or as events."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from serve.answer import Choice, Completion, Delta, TokenLogprob, ToolCall
from serve.dialects import ROUTES, Head, Json, Parsed
from serve.engine import FinishReason, Logprob
from serve.errors import RequestError
from serve.request import GenerationRequest

USER = {"role": "user", "content": "hi"}
CONTEXT = 100
HEAD = Head(id="r1", created=7, model="tiny")
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
CALLED = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]


def ask(route: str, body: Any) -> Parsed:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ROUTES[route].parse(raw, context=CONTEXT)


def only(parsed: Parsed) -> GenerationRequest:
    (request,) = parsed.requests
    assert isinstance(request, GenerationRequest)
    return request


def refused(route: str, body: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ask(route, body)
    error = caught.value
    assert error.sentence.count("\n") == 0
    assert len(error.sentence) < 700
    json.dumps(ROUTES[route].error_body(error), ensure_ascii=False).encode()  # can be sent
    return error


def choice(
    index: int = 0,
    output: str = "Yes.",
    reasoning: str | None = "Hm.",
    finish_reason: FinishReason = "stop",
    calls: int = 0,
    logprobs: bool = False,
) -> Choice:
    token = TokenLogprob(
        token="Yes", value=Logprob(logprob=-0.5), top=(("Yes", -0.5), ("No", float("-inf")))
    )
    return Choice(
        index=index,
        output=output,
        reasoning=reasoning,
        finish_reason=finish_reason,
        tool_calls=tuple(
            ToolCall(id=f"call_r1_{index}_{i}", name="add", arguments='{"a": 1}')
            for i in range(calls)
        ),
        completion_tokens=5,
        reasoning_tokens=2,
        logprobs=(token,) if logprobs else None,
    )


def completion(*choices: Choice) -> Completion:
    return Completion(
        id=HEAD.id, created=HEAD.created, model=HEAD.model, prompt_tokens=3, choices=choices
    )


def deltas(one: Choice) -> list[Delta]:
    """The choice in small pieces, as it would have come."""
    pieces = [Delta(kind="reasoning", text=letter) for letter in one.reasoning or ""]
    pieces += [Delta(kind="output", text=letter) for letter in one.output]
    for number, call in enumerate(one.tool_calls):
        pieces.append(Delta(kind="tool_call", text="", tool=number, name=call.name))
        pieces += [Delta(kind="tool_call", text=a, tool=number) for a in call.arguments]
    return pieces


def stream(parsed: Parsed, answers: Sequence[Completion]) -> list[Json]:
    """All events; choices take turns, as they would."""
    events = parsed.events(HEAD)
    said = events.begin()
    flat = [c for answer in answers for c in answer.choices]
    waiting = [deltas(c) for c in flat]
    while any(waiting):
        for number, pieces in enumerate(waiting):
            said += events.delta(number, pieces.pop(0)) if pieces else []
    for number, one in enumerate(flat):
        said += events.end(number, one)
    said += events.finish(sum(answer.prompt_tokens for answer in answers))
    return said

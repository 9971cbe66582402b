"""Whatever the body is, the parser answers by a request or by RequestError."""

import json
import random
from typing import Any

import pytest

from serve.dialects import ROUTES, Head, mlflow, openai_chat, openai_completions, score
from serve.errors import RequestError

PLACES = [route for route in ROUTES if not route.startswith("/openai")]
"""Those below /openai are read by the same tables; test_azure.py has what is theirs."""
NAMES = sorted(
    {*score.FIELDS, *openai_chat.FIELDS, *openai_completions.FIELDS, *mlflow.PARAMETERS}
    | {"input_data", "input_string", "parameters", "params", "columns", "data", "index"}
    | {"role", "content", "type", "text", "function", "name", "arguments", "id", "tool_call_id"}
    | {"tool_calls", "thinking", "reasoning", "schema", "json_schema", "include_usage"}
)
WORDS = ["", " ", "hi", "user", "assistant", "system", "tool", "text", "function", "auto", "low"]
WORDS += ["input_string", "json_schema", "\x00", "\ud800", "{}", "[", "日本", "a" * 300]
NUMBERS = [0, 1, -1, 2, 0.5, 1e-300, 1e300, 2**63, 10**400, True, False, None]


def value(draw: random.Random, depth: int) -> Any:
    kind = draw.random()
    if depth == 0 or kind < 0.4:
        return draw.choice(WORDS if draw.random() < 0.5 else NUMBERS)
    if kind < 0.65:
        return [value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(NAMES): value(draw, depth - 1) for _ in range(draw.randrange(6))}


def likely(draw: random.Random) -> Any:
    """A body that gets past the first look."""
    user = {"role": "user", "content": draw.choice(["hi", value(draw, 2)])}
    start: Any = draw.choice(
        [
            {"prompt": "hi"},
            {"messages": [user]},
            {"messages": [user, value(draw, 3), user]},
            {"input_data": {"input_string": draw.choice([[user], "hi", value(draw, 2)])}},
            {"input_data": {"columns": ["input_string"], "data": value(draw, 2)}},
        ]
    )
    more = {draw.choice(NAMES): value(draw, 3) for _ in range(draw.randrange(3))}
    return draw.choice([{**more, **start}, [{**more, **start}], start | more])


@pytest.mark.parametrize("route", PLACES)
def test_any_json_is_understood_or_refused(route: str) -> None:
    draw = random.Random(route)
    good = 0
    for _ in range(3000):
        body = likely(draw) if draw.random() < 0.8 else value(draw, 4)
        try:
            parsed = ROUTES[route].parse(json.dumps(body).encode(), context=50)
        except RequestError as error:
            assert error.status in (400, 413)
            json.dumps(ROUTES[route].error_body(error), ensure_ascii=False).encode()
            continue
        assert parsed.requests
        good += 1
        if parsed.stream:
            parsed.events(Head(id="r1", created=7, model="tiny")).begin()
    assert good > 50


@pytest.mark.parametrize("route", PLACES)
def test_any_bytes_are_refused(route: str) -> None:
    draw = random.Random(route)
    for _ in range(500):
        with pytest.raises(RequestError):
            ROUTES[route].parse(draw.randbytes(draw.randrange(60)), context=50)

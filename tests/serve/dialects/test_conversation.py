"""Messages and tools, wherever they stand."""

from typing import Any

import pytest

from serve.dialects import Json
from serve.request import Called, Message
from tests.serve.dialects.talk import CALL, CALLED, TOOL, USER, ask, only, refused

CHAT = "/v1/chat/completions"
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "2"}
ROUTES = pytest.mark.parametrize("route", ["/score", CHAT])


@ROUTES
def test_text_parts_are_joined_by_line_ends(route: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = only(ask(route, {"messages": [{"role": "user", "content": parts}]}))
    assert asked.messages == (Message(role="user", content="a\nb"),)


@ROUTES
def test_a_developer_message_is_the_system_text(route: str) -> None:
    body = {"messages": [{"role": "developer", "content": "x"}, USER]}
    assert only(ask(route, body)).system == "x"


@ROUTES
@pytest.mark.parametrize("name", ["thinking", "reasoning", "reasoning_content"])
def test_reasoning_of_an_earlier_turn_is_its_thinking(route: str, name: str) -> None:
    turn = {"role": "assistant", "content": "yes", name: "Hm."}
    assert only(ask(route, {"messages": [USER, turn, USER]})).messages[1].thinking == "Hm."


@ROUTES
def test_a_tool_turn_carries_the_function_that_was_called(route: str) -> None:
    asked = only(ask(route, {"messages": [*CALLED, {**RESULT, "content": ""}], "tools": [TOOL]}))
    assert asked.messages[1].tool_calls == (Called(id="c1", name="add", arguments="{}"),)
    assert asked.messages[2] == Message(role="tool", content="", name="add", tool_call_id="c1")
    assert asked.tools == (TOOL,)


@ROUTES
def test_tabs_and_line_ends_are_text(route: str) -> None:
    body = {"messages": [{"role": "user", "content": "a\tb\r\nc"}]}
    assert only(ask(route, body)).messages[0].content == "a\tb\r\nc"


@ROUTES
@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        ("hi", "messages"),
        (["hi"], "messages[0]"),
        ([{"role": "bot", "content": "x"}], "messages[0].role"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": "  "}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "x", "lang": "y"}]}],
            "messages[0].content[0].lang",
        ),
        ([{"role": "user", "content": "x", "thinking": "y"}], "messages[0].thinking"),
        ([{"role": "user", "content": "x", "name": "y"}], "messages[0].name"),
        ([{"role": "system", "content": "x"}], "messages"),
        ([USER, {"role": "assistant", "content": "x"}], "messages"),
        ([USER, {"role": "assistant", "content": ""}, USER], "messages[1].content"),
        (
            [USER, {"role": "assistant", "content": "x", "reasoning": 3}, USER],
            "messages[1].reasoning",
        ),
        (
            [USER, {"role": "assistant", "content": "x", "reasoning": "a", "thinking": "b"}, USER],
            "messages[1].reasoning",
        ),
        (
            [USER, {"role": "assistant", "content": "x", "audio": {"id": "a"}}, USER],
            "messages[1].audio",
        ),
        ([USER, {"role": "system", "content": "x"}, USER], "messages[1].role"),
        ([{"role": "user", "content": "a\ud800b"}], "messages[0].content"),
        ([{"role": "user", "content": "a\x00b"}], "messages[0].content"),
        ([USER, RESULT], "messages[1].tool_call_id"),
        ([*CALLED, {"role": "tool", "content": "2"}], "messages[2].tool_call_id"),
        ([*CALLED, {**RESULT, "tool_call_id": ["c1"]}], "messages[2].tool_call_id"),
        ([*CALLED, {**RESULT, "name": "mul"}], "messages[2].name"),
        ([*CALLED, {**RESULT, "content": None, "extra": 1}], "messages[2].extra"),
    ],
)
def test_a_conversation_out_of_shape_names_the_message(
    route: str, messages: Any, field: str
) -> None:
    assert refused(route, {"messages": messages}).field == field


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (3, ""),
        ({**CALL, "type": "custom"}, ""),
        ({**CALL, "id": ""}, ".id"),
        ({**CALL, "extra": 1}, ".extra"),
        ({**CALL, "function": {"name": "a b", "arguments": "{}"}}, ".function.name"),
        ({**CALL, "function": {"name": "add", "arguments": {}}}, ".function.arguments"),
        ({**CALL, "function": {"name": "add", "arguments": "[1]"}}, ".function.arguments"),
        ({**CALL, "function": {"name": "add", "arguments": "{"}}, ".function.arguments"),
        ({**CALL, "function": {"name": "add", "arguments": "{}", "x": 1}}, ".function.x"),
    ],
)
def test_a_tool_call_out_of_shape_names_its_part(call: Any, field: str) -> None:
    messages = [USER, {"role": "assistant", "tool_calls": [call]}, RESULT]
    assert refused(CHAT, {"messages": messages}).field == f"messages[1].tool_calls[0]{field}"


def test_tool_calls_must_be_a_list() -> None:
    messages = [USER, {"role": "assistant", "content": "x", "tool_calls": CALL}, USER]
    assert refused(CHAT, {"messages": messages}).field == "messages[1].tool_calls"


def deep(levels: int) -> dict[str, Any]:
    return {"properties": deep(levels - 1)} if levels else {}


@ROUTES
@pytest.mark.parametrize(
    ("function", "field"),
    [
        ({}, ".function.name"),
        ({"name": "a b"}, ".function.name"),
        ({"name": "a" * 65}, ".function.name"),
        ({"name": "add\n"}, ".function.name"),
        ({"name": "add", "description": 3}, ".function.description"),
        ({"name": "add", "parameters": []}, ".function.parameters"),
        ({"name": "add", "parameters": {"a\x00": 1}}, ".function.parameters"),
        ({"name": "add", "parameters": {"a": ["\ud800"]}}, ".function.parameters"),
        ({"name": "add", "parameters": deep(40)}, ".function.parameters"),
        ({"name": "add", "strict": True}, ".function.strict"),
        ({"name": "add", "desc": "x"}, ".function.desc"),
    ],
)
def test_a_tool_out_of_shape_names_its_part(route: str, function: Any, field: str) -> None:
    tools = [{"type": "function", "function": function}]
    assert refused(route, {"messages": [USER], "tools": tools}).field == f"tools[0]{field}"


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        (TOOL, "tools"),
        ([TOOL] * 129, "tools"),
        (["add"], "tools[0]"),
        ([{**TOOL, "x": 1}], "tools[0]"),
        ([{**TOOL, "type": "web_search"}], "tools[0]"),
        ([TOOL, TOOL], "tools[1].function.name"),
    ],
)
def test_a_list_of_tools_out_of_shape_is_refused(tools: Any, field: str) -> None:
    assert refused(CHAT, {"messages": [USER], "tools": tools}).field == field


def test_both_names_of_reasoning_may_come_back_as_replies_carry_them() -> None:
    turn: Json = {
        "role": "assistant",
        "content": "yes",
        "reasoning": "Hm.",
        "reasoning_content": "Hm.",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert only(ask(CHAT, {"messages": [USER, turn, USER]})).messages[1].thinking == "Hm."

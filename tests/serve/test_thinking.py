"""Thinking and tool calls of models other than gpt-oss."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import pytest

from serve.reader import NONE, Reader
from serve.thinking import hidden_markers, parse_calls

SIZES = [1, 2, 5, 1000]


def read(tokens: Sequence[int]) -> str:
    return "".join(chr(token) for token in tokens if token < 2_000_000)


def reader(
    text: str | Sequence[int],
    *,
    size: int,
    opened: bool = False,
    tools: bool = False,
    hidden: Mapping[int, str] = NONE,
) -> Reader:
    tokens = [ord(letter) for letter in text] if isinstance(text, str) else text
    made = Reader(decode=read, markers=None, opens_thinking=opened, tools=tools, hidden=hidden)
    for at in range(0, len(tokens), size):
        made.feed(tokens[at : at + size])
    made.finish(complete=True)
    return made


def calls(said: Reader) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in said.tool_calls]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("text", "opened", "output", "reasoning", "tokens"),
    [
        ("<think>why</think>\n\nso", False, "so", "why", 18),
        ("\n<think>\nwhy", False, "", "why", 12),
        ("<think>why</thi", False, "", "why</thi", 15),
        ("<think></think>so", False, "so", None, 15),
        ("why</think>so", True, "so", "why", 11),
        ("<think>why</think>so", True, "so", "why", 18),
        ("why", True, "", "why", 3),
        ("<thi", True, "", "<thi", 4),
        (" \n", True, "", None, 2),
        ("<thi", False, "<thi", None, 0),
        ("<that> ", False, "<that>", None, 0),
        ("the tag </think> closes", False, "the tag </think> closes", None, 0),
        ("<think>a</think>b</think>c", False, "b</think>c", "a", 16),
        (" so \n it is ", False, "so \n it is", None, 0),
        ("", False, "", None, 0),
    ],
)
def test_think_blocks(
    text: str, opened: bool, output: str, reasoning: str | None, tokens: int, size: int
) -> None:
    said = reader(text, opened=opened, size=size)
    assert (said.output, said.reasoning, said.reasoning_tokens) == (output, reasoning, tokens)


def test_what_may_be_the_closing_marker_waits() -> None:
    made = Reader(decode=read, markers=None, opens_thinking=True)
    seen = ["".join(d.text for d in made.feed([ord(letter)])) for letter in "a</b"]
    assert seen == ["a", "", "", "</b"]


@pytest.mark.parametrize("size", SIZES)
def test_markers_that_decoding_leaves_out_are_still_read(size: int) -> None:
    names = ["<think>", "</think>", "[TOOL_CALLS]", "</s>"]
    added = {
        2_000_000 + i: SimpleNamespace(content=name, special=True) for i, name in enumerate(names)
    }
    hidden = hidden_markers(added)
    think, close, tool = hidden
    text = [think, *map(ord, "why"), close, tool, *map(ord, '[{"name": "f"}]')]
    said = reader(text, size=size, tools=True, hidden=hidden)
    assert (said.reasoning, said.reasoning_tokens, said.output) == ("why", 5, "")
    assert calls(said) == [("f", "{}")]


HERMES = '<tool_call>\n{"name": "f", "arguments": {"city": "東京", "n": [1]}}\n</tool_call>'
MISTRAL = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": "]"}}, {"name": "g", "arguments": "{}"}]'


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("text", "output", "found"),
    [
        (HERMES, "", [("f", '{"city": "東京", "n": [1]}')]),
        (HERMES.removesuffix("</tool_call>"), "", [("f", '{"city": "東京", "n": [1]}')]),
        (f"so\n{HERMES}\n{HERMES}\n", "so", [("f", '{"city": "東京", "n": [1]}')] * 2),
        (f"so{HERMES}more", "so\n\nmore", [("f", '{"city": "東京", "n": [1]}')]),
        (MISTRAL, "", [("f", '{"a": "]"}'), ("g", "{}")]),
        (f"{MISTRAL} so", "so", [("f", '{"a": "]"}'), ("g", "{}")]),
        ("<tool_call>[1]</tool_call> so", "<tool_call>[1]</tool_call> so", []),
        ('<tool_call>{"name": "f', '<tool_call>{"name": "f', []),
        ("a <tool_ca", "a <tool_ca", []),
        ("[TOOL_CALLS]", "[TOOL_CALLS]", []),
        ("[TOOL_CALLS] so", "[TOOL_CALLS] so", []),
        ('[TOOL_CALLS][{"name": ]', '[TOOL_CALLS][{"name": ]', []),
        ("[TOOL_CALLS][]", "[TOOL_CALLS][]", []),
    ],
)
def test_tool_calls(text: str, output: str, found: list[tuple[str, str]], size: int) -> None:
    said = reader(text, tools=True, size=size)
    assert (said.output, calls(said)) == (output, found)
    assert reader(text, size=size).output == text.strip()


def test_tool_calls_come_after_thinking_and_not_in_it() -> None:
    said = reader(f"<think>{HERMES}</think>{HERMES}", tools=True, size=3)
    assert said.reasoning == HERMES
    assert len(said.tool_calls) == 1
    assert len(said.tool_calls[0].id) == 9  # Mistral's templates ask for this


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" + "9" * 5000,
        "{}",
        "null",
        '{"name": 1}',
        '{"name": ""}',
        '[{"name":"f"},1]',
    ],
)
def test_what_is_no_call_is_none(text: str) -> None:
    assert parse_calls(text) is None


def test_half_surrogates_in_a_call_can_be_sent() -> None:
    found = parse_calls(r'{"name": "f\ud800", "arguments": {"a": "\ud83d", "b": "\ud83d\ude00"}}')
    assert found == [("f?", '{"a": "?", "b": "😀"}')]

"""Harmony's messages apart, from good output, cut output and nonsense."""

import random
from collections.abc import Sequence

import pytest

from serve.harmony import Markers
from serve.reader import Reader

NAMES = ["return", "constrain", "channel", "start", "end", "message", "call"]
VOCABULARY = {f"<|{name}|>": 1000 + i for i, name in enumerate(NAMES)}
MARKERS = Markers.of(VOCABULARY)


def ids(text: str) -> list[int]:
    """Letters are their code points, markers their ids."""
    out: list[int] = []
    while text:
        marker = next((m for m in VOCABULARY if text.startswith(m)), text[0])
        out.append(VOCABULARY.get(marker) or ord(marker))
        text = text[len(marker) :]
    return out


def read(tokens: Sequence[int]) -> str:
    return "".join(chr(token) for token in tokens)


def reader(tokens: Sequence[int], *, tools: bool = False, size: int = 1000) -> Reader:
    made = Reader(decode=read, markers=MARKERS, tools=tools)
    for at in range(0, len(tokens), size):
        made.feed(tokens[at : at + size])
    made.finish(complete=True)
    return made


def messages(tokens: Sequence[int]) -> tuple[str, str | None]:
    """(output, reasoning) by the plainest rule, from all ids at once: what reading must equal."""
    assert MARKERS is not None
    marked = {MARKERS.start, MARKERS.end, MARKERS.message, MARKERS.channel, *MARKERS.stops}
    found: dict[bool, list[str]] = {True: [], False: []}
    state, seen = "bare", list[int]()
    role, channel = "assistant", "final"
    for token in (*tokens, MARKERS.end):
        if token == MARKERS.constrain and state == "channel":
            channel, state = (read(seen).lower().split() or ["final"])[0], "format"
            seen.clear()
        if token not in marked:
            if token != MARKERS.constrain:
                seen.append(token)
            continue
        text = read(seen).strip()
        seen.clear()
        if state == "role" and text:
            role = text
        elif state == "channel":
            channel = (text.lower().split() or ["final"])[0]
        elif state == "bare" and text.startswith("to="):
            pass
        elif state in ("bare", "body") and text and role.startswith("assistant"):
            found[channel == "final"].append(text)
        if token == MARKERS.message:
            state = "body"
        elif token == MARKERS.channel:
            state = "channel"
        else:
            state, role, channel = "role", "assistant", "final"
    return "\n\n".join(found[True]), "\n\n".join(found[False]) or None


ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "output", "reasoning"),
    [
        (f"{ANALYSIS}why<|end|>{FINAL}so<|return|>", "so", "why"),
        (f"{ANALYSIS}why<|end|>{FINAL}so", "so", "why"),
        (f"{ANALYSIS} why \n<|end|>{FINAL}\n so it  is \n<|return|>", "so it  is", "why"),
        (f"{ANALYSIS}why", "", "why"),
        (f"{ANALYSIS}why<|end|>", "", "why"),
        (f"{ANALYSIS}why<|end|><|start|>assistant<|channel|>fin", "", "why"),
        ("<|channel|>", "", None),
        ("", "", None),
        ("plain", "plain", None),
        ("to", "to", None),
        ("plain<|return|>", "plain", None),
        ("<|message|>so<|return|>", "so", None),
        ("<|channel|><|message|>so", "so", None),
        ("<|start|>assistant<|message|>so<|return|>", "so", None),
        (f"{ANALYSIS}why{FINAL}so", "so", "why"),
        (f"{ANALYSIS}why<|channel|>final<|message|>so", "so", "why"),
        (f"{ANALYSIS}a<|message|>b<|end|>{FINAL}so", "so", "a\n\nb"),
        (f"{ANALYSIS}a<|end|>{ANALYSIS}b<|end|>{FINAL}so", "so", "a\n\nb"),
        ("<|channel|>analysis<|channel|>final<|message|>so", "so", None),
        ("<|channel|>final <|constrain|>json<|message|>{}<|return|>", "{}", None),
        ("<|channel|>final<|constrain|>json<|message|>{}<|return|>", "{}", None),
        (" to=functions.f<|channel|>commentary json<|message|>{}<|call|>", "", "{}"),
        ("<|channel|>commentary<|message|>I look it up.<|end|>", "", "I look it up."),
        (f"{FINAL}so<|end|><|start|>user<|message|>made up<|end|>", "so", None),
        (f"{FINAL}so<|return|>{FINAL}more", "so\n\nmore", None),
    ],
)
def test_harmony_output(text: str, output: str, reasoning: str | None, size: int) -> None:
    said = reader(ids(text), size=size)
    assert (said.output, said.reasoning) == (output, reasoning)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>",
        "<|channel|>commentary to=functions.get_weather json<|message|>",
        "<|channel|>analysis to=functions.get_weather<|message|>",
        " to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>",
        "<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary<|message|>",
    ],
)
def test_a_message_to_a_function_is_a_tool_call(text: str, size: int) -> None:
    said = reader(ids(f'{text}{{"city": "東京"}} <|call|>'), tools=True, size=size)
    assert [(c.name, c.arguments) for c in said.tool_calls] == [("get_weather", '{"city": "東京"}')]
    assert (said.output, said.reasoning, said.reasoning_tokens) == ("", None, 0)
    without = reader(ids(f'{text}{{"city": "東京"}} <|call|>'), size=size)
    assert (without.reasoning, without.tool_calls) == ('{"city": "東京"}', ())


def test_the_recipient_holds_for_one_message_and_calls_are_counted() -> None:
    call = "<|start|>assistant to=functions.{}<|channel|>commentary<|message|>{}<|call|>"
    text = f"{ANALYSIS}why<|end|>{call.format('f', '1')}{call.format('g', '')}"
    said = reader(ids(f"{text}<|start|>assistant<|channel|>commentary<|message|>aside"), tools=True)
    assert [(c.name, c.arguments) for c in said.tool_calls] == [("f", "1"), ("g", "")]
    assert said.reasoning == "why\n\naside"
    said = reader(ids("to=functions.f<|message|>1<|message|>aside"), tools=True)
    assert ([c.arguments for c in said.tool_calls], said.output) == (["1"], "aside")


def test_messages_to_tools_other_than_functions_are_reasoning() -> None:
    said = reader(ids("<|channel|>analysis to=browser.search<|message|>{}<|call|>"), tools=True)
    assert (said.reasoning, said.tool_calls) == ("{}", ())


def test_a_tool_calls_name_comes_before_its_arguments() -> None:
    made = Reader(decode=read, markers=MARKERS, tools=True)
    tokens = ids("<|channel|>commentary to=functions.f<|message|>{}")
    deltas = [delta for token in tokens for delta in made.feed([token])]
    assert [(d.kind, d.name, d.text) for d in deltas] == [
        ("tool_call", "f", ""),
        ("tool_call", None, "{"),
        ("tool_call", None, "}"),
    ]


def test_text_comes_as_soon_as_it_is_certain() -> None:
    made = Reader(decode=read, markers=MARKERS)
    tokens = ids(f"{ANALYSIS}a  b<|end|>")
    seen = ["".join(d.text for d in made.feed([token])) for token in tokens]
    assert seen == [""] * (len(tokens) - 5) + ["a", "", "", "  b", ""]


def test_reasoning_tokens_are_those_of_its_text() -> None:
    assert reader(ids(f"{ANALYSIS}why<|end|>{FINAL}so<|return|>")).reasoning_tokens == len("why")


def test_marker_letters_that_are_not_marker_ids_end_nothing() -> None:
    letters = [ord(letter) for letter in "a<|end|>b"]
    assert reader([*ids("<|channel|>final<|message|>"), *letters]).output == "a<|end|>b"


def test_nonsense_reads_like_the_plainest_rule_in_any_grouping() -> None:
    chance = random.Random(3)
    pool = [*VOCABULARY.values(), *VOCABULARY.values(), *map(ord, "abto= \n")]
    headers = ["analysis", "final", "assistant", "user", "to=functions.f"]
    for _ in range(3000):
        tokens: list[int] = []
        for _ in range(chance.randrange(12)):
            tokens += (
                ids(chance.choice(headers)) if chance.random() < 0.2 else [chance.choice(pool)]
            )
        expected = messages(tokens)
        for size in (1, 2, 1000):
            said = reader(tokens, size=size)
            assert (said.output, said.reasoning) == expected, tokens
        counts = {reader(tokens, size=size).reasoning_tokens for size in (1, 2, 1000)}
        assert len(counts) == 1


def test_a_model_without_harmonys_tokens_has_no_markers() -> None:
    assert Markers.of({"<|end|>": 1}) is None

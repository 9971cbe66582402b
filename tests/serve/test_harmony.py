"""Reasoning and final text apart, from good output, cut output and nonsense."""

import random
from collections.abc import Sequence

import pytest

from serve.harmony import Answer, Markers, split, split_think

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


def answer(text: str) -> tuple[str, str | None]:
    said = split(ids(text), read, MARKERS)
    return said.output, said.reasoning


ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "output", "reasoning"),
    [
        (f"{ANALYSIS}why<|end|>{FINAL}so<|return|>", "so", "why"),
        (f"{ANALYSIS}why<|end|>{FINAL}so", "so", "why"),
        (f"{ANALYSIS}why", "", "why"),
        (f"{ANALYSIS}why<|end|>", "", "why"),
        (f"{ANALYSIS}why<|end|><|start|>assistant<|channel|>fin", "", "why"),
        ("<|channel|>", "", None),
        ("", "", None),
        ("plain", "plain", None),
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
        (f"{FINAL}so<|end|><|start|>user<|message|>made up<|end|>", "so", None),
        (f"{FINAL}so<|return|>{FINAL}more", "so\n\nmore", None),
    ],
)
def test_harmony_output(text: str, output: str, reasoning: str | None) -> None:
    assert answer(text) == (output, reasoning)


def test_marker_letters_that_are_not_marker_ids_end_nothing() -> None:
    letters = [ord(letter) for letter in "a<|end|>b"]
    said = split([*ids("<|channel|>final<|message|>"), *letters], read, MARKERS)
    assert said.output == "a<|end|>b"


def test_no_sequence_of_ids_is_an_error_and_none_invents_text() -> None:
    chance = random.Random(3)
    pool = [*VOCABULARY.values(), *map(ord, "abc ")]
    for _ in range(3000):
        tokens = chance.choices(pool, k=chance.randrange(12))
        said = split(tokens, read, MARKERS)
        letters = sorted(c for c in said.output + (said.reasoning or "") if c in "abc")
        assert not set(letters) - {chr(t) for t in tokens if t < 1000}
        assert len(letters) <= sum(t < 1000 for t in tokens)


def test_a_model_without_harmonys_tokens_has_no_markers() -> None:
    assert Markers.of({"<|end|>": 1}) is None
    assert split(ids("so"), read, None) == Answer(output="so", reasoning=None)


@pytest.mark.parametrize(
    ("text", "opened", "output", "reasoning"),
    [
        ("<think>why</think>\n\nso", False, "so", "why"),
        ("\n<think>\nwhy", False, "", "why"),
        ("<think></think>so", False, "so", None),
        ("why</think>so", True, "so", "why"),
        ("why", True, "", "why"),
        ("the tag </think> closes", False, "the tag </think> closes", None),
        ("so", False, "so", None),
    ],
)
def test_think_blocks(text: str, opened: bool, output: str, reasoning: str | None) -> None:
    expected = Answer(output=output, reasoning=reasoning)
    assert split_think(text, opens_thinking=opened) == expected

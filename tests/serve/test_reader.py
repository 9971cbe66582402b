"""What holds for every format: stop texts, any grouping, cut answers, raw completions."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from serve.answer import Delta
from serve.harmony import Markers
from serve.reader import Reader


def read(tokens: Sequence[int]) -> str:
    return "".join(chr(token) for token in tokens)


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def said(reader: Reader) -> tuple[object, ...]:
    calls = [(call.name, call.arguments) for call in reader.tool_calls]
    return reader.output, reader.reasoning, calls, reader.reasoning_tokens, reader.stopped


def feed(reader: Reader, ids: Sequence[int], size: int, *, complete: bool = True) -> list[Delta]:
    deltas = [d for at in range(0, len(ids), size) for d in reader.feed(ids[at : at + size])]
    return deltas + reader.finish(complete=complete)


def joined(deltas: Sequence[Delta]) -> tuple[object, ...]:
    """What somebody who sees only the deltas has in the end."""
    texts = {"output": "", "reasoning": ""}
    calls: list[list[str]] = []
    for delta in deltas:
        assert delta.text or delta.name
        if delta.kind != "tool_call":
            texts[delta.kind] += delta.text
            continue
        if delta.name is not None:
            assert delta.tool == len(calls)
            calls.append([delta.name, ""])
        calls[delta.tool][1] += delta.text
    return texts["output"], texts["reasoning"] or None, [(name, text) for name, text in calls]


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    ("text", "stop", "output"),
    [
        ("so END more", ("END",), "so"),
        ("so EN", ("END",), "so EN"),
        ("so EEND", ("END",), "so E"),
        ("one\ntwo", ("\n",), "one"),
        ("\n\none\ntwo", ("\n",), "one"),
        ("abcd", ("d", "bc"), "a"),
        ("abcd", ("bcd", "c"), "ab"),
        ("abcd", ("c", "bc"), "a"),
        ("abc", ("a",), ""),
        ("<think>END</think>so END", ("END",), "so"),
        ("<think>END</think>so", ("k>s",), "so"),
        ("so </s> END", (" END", "</s>"), "so"),
    ],
)
def test_the_output_ends_before_the_stop_text_that_is_complete_first(
    text: str, stop: tuple[str, ...], output: str, size: int
) -> None:
    reader = Reader(decode=read, markers=None, stop=stop)
    deltas = feed(reader, letters(text), size)
    assert reader.output == output
    assert joined(deltas)[0] == output
    assert reader.stopped == (text.strip() not in (output, f"<think>END</think>{output}"))


def test_after_a_stop_text_nothing_more_is_taken() -> None:
    reader = Reader(decode=read, markers=None, stop=("END",), tools=True)
    reader.feed(letters("so END"))
    assert reader.stopped
    call = '<tool_call>{"name": "f"}</tool_call>'
    assert reader.feed(letters(f"more{call}")) == reader.finish(complete=True) == []
    assert (reader.output, reader.tool_calls) == ("so", ())


def test_reasoning_after_a_stop_text_is_not_counted(tokenizer: Any) -> None:
    text = (
        "<|channel|>final<|message|>so END<|end|><|start|>assistant<|channel|>analysis<|message|>a"
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for size in (1, 1000):
        markers = Markers.of(tokenizer.get_vocab())
        reader = Reader(decode=tokenizer.decode, markers=markers, stop=("END",))
        feed(reader, ids, size)
        assert said(reader) == ("so", None, [], 0, True)


def test_a_stop_text_in_arguments_of_a_call_stops_nothing() -> None:
    reader = Reader(decode=read, markers=None, stop=("END",), tools=True)
    feed(reader, letters('<tool_call>{"name": "f", "arguments": {"a": "END"}}</tool_call>'), 3)
    assert reader.tool_calls[0].arguments == '{"a": "END"}'
    assert not reader.stopped


def test_what_may_be_a_stop_text_waits_with_the_space_before_it() -> None:
    reader = Reader(decode=read, markers=None, stop=("END",))
    seen = ["".join(d.text for d in reader.feed([letter])) for letter in letters("a ENo")]
    assert seen == ["a", "", "", "", " ENo"]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_raw_completion_is_the_text_as_decoded(size: int) -> None:
    text = " <think>why</think>  so\n<tool_call>{}</tool_call>\n "
    reader = Reader(decode=read, markers=None, plain=True, tools=True)
    assert joined(feed(reader, letters(text), size))[0] == reader.output == text
    stopped = Reader(decode=read, markers=None, plain=True, stop=("so",))
    feed(stopped, letters(text), size)
    assert stopped.output == " <think>why</think>  "


def test_all_at_once_gives_one_delta_of_each_kind() -> None:
    reader = Reader(decode=read, markers=None)
    assert reader.feed(letters("<think>why</think>so it is")) == [
        Delta(kind="reasoning", text="why"),
        Delta(kind="output", text="so it is"),
    ]


PIECES = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "END", "\n", " ", "a"),
    *('<tool_call>{"name": "f"}</tool_call>', '[TOOL_CALLS][{"name": "g"}]', '[{"name": "h"}]'),
    *('{"name": "f", "arguments": {}}', "<", "</th", "EN", "東京", "😀"),
]
CONTROL = ["<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|call|>", "<|constrain|>"]
CALL = "<|start|>assistant<|channel|>commentary to=functions.f<|message|>"
HEADERS = [
    CALL,
    "analysis",
    "final",
    "commentary to=functions.f",
    "assistant",
    " to=functions.g",
    "user",
]


@pytest.mark.parametrize("speaks_harmony", [True, False])
def test_any_text_reads_the_same_in_any_grouping(tokenizer: Any, speaks_harmony: bool) -> None:
    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    markers = Markers.of(tokenizer.get_vocab()) if speaks_harmony else None
    pieces = [*PIECES, *(CONTROL * 3 + HEADERS * 2 if speaks_harmony else ())]
    chance = random.Random(11)
    cut = stopped = called = 0
    for _ in range(400):
        text = "".join(chance.choices(pieces, k=chance.randrange(12)))
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = ids[: chance.choice([len(ids), chance.randrange(len(ids) + 1)])]
        ids += chance.choices(range(9, len(tokenizer)), k=chance.choice([0, 0, 5]))
        given: dict[str, Any] = {
            "stop": chance.choice([(), ("END",), ("\n", "END"), ("a",), ("東", "\n\n")]),
            "tools": chance.random() < 0.7,
            "opens_thinking": chance.random() < 0.3,
            "plain": chance.random() < 0.1,
        }
        complete = chance.random() < 0.5
        seen = []
        for size in (1, 2, 3, 7, 1000):
            reader = Reader(decode=decode, markers=markers, **given)
            assert joined(feed(reader, ids, size, complete=complete)) == said(reader)[:3], text
            seen.append(said(reader))
        assert seen == seen[:1] * len(seen), (text, given)
        cut += not complete
        stopped += reader.stopped
        called += bool(reader.tool_calls)
    assert min(cut, stopped, called) > 10


@pytest.mark.parametrize(("complete", "output"), [(False, "東"), (True, "東 \ufffd")])
def test_half_a_character_at_the_end_of_a_cut_answer_is_dropped(
    tokenizer: Any, complete: bool, output: str
) -> None:
    ids = tokenizer("東 京", add_special_tokens=False)["input_ids"]
    reader = Reader(decode=tokenizer.decode, markers=None)
    feed(reader, ids[:-1], 1, complete=complete)
    assert reader.output == output

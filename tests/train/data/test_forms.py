"""What the forms take beyond what the conversion tests show: pairs, reasoning of any name."""

from collections import Counter
from typing import Any

import pytest

from train.data.forms import EMPTY_THINK, FORMS, BadRow, Notices, recognise, training_rows
from train.errors import InputError
from train.recipe import DataConfig

CONFIG = DataConfig(train="")
PAIR = {"prompt": "q", "chosen": "<think>why</think>yes", "rejected": "<think>else</think>no"}


def made(row: Any, form: str, *, pairs: bool = False) -> tuple[list[dict[str, Any]], Notices]:
    notices: Notices = Counter()
    return training_rows(row, form, CONFIG, notices, pairs=pairs), notices


def refused(row: Any, form: str, *, pairs: bool = False) -> BadRow:
    with pytest.raises(BadRow) as caught:
        made(row, form, pairs=pairs)
    return caught.value


def chat(**answer: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", **answer}]}


def test_a_pair_is_prompt_and_chosen_answer_with_the_rejected_one_beside() -> None:
    rows, notices = made(PAIR, "preference", pairs=True)
    assert rows == [
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "yes", "thinking": "why"},
            ],
            "rejected": {"role": "assistant", "content": "no", "thinking": "else"},
        }
    ]
    assert not notices


def test_without_pairs_the_chosen_answer_alone_is_learned_its_reasoning_apart() -> None:
    rows, notices = made(PAIR, "preference")
    assert rows[0]["messages"][1] == {"role": "assistant", "content": "yes", "thinking": "why"}
    assert "rejected" not in rows[0]
    assert any("the rejected one is not used" in notice for notice in notices)


def test_a_pair_of_equal_answers_teaches_nothing() -> None:
    row = {"prompt": "q", "chosen": "yes", "rejected": " yes\n"}
    assert refused(row, "preference", pairs=True).kind == "equal pair"
    assert refused({**PAIR, "rejected": "<think>x"}, "preference", pairs=True).kind == (
        "unclosed <think>"
    )


def test_method_dpo_refuses_rows_that_are_no_pairs() -> None:
    assert recognise({**PAIR, "messages": []}, "x:1", pairs=True) == "preference"
    with pytest.raises(InputError, match=r"x:1: method is dpo.* but the row has answer, question"):
        recognise({"question": "q", "answer": "a"}, "x:1", pairs=True)


@pytest.mark.parametrize("key", ["thinking", "reasoning_content", "reasoning"])
def test_reasoning_is_taken_under_any_of_its_names(key: str) -> None:
    rows, notices = made(chat(content="a", **{key: "why"}), "chat")
    assert rows[0]["messages"][1] == {"role": "assistant", "content": "a", "thinking": "why"}
    assert not notices


def test_think_tags_in_a_conversation_are_never_learned_as_text() -> None:
    rows, _ = made(chat(content="<think>why</think>\n\na"), "chat")
    assert rows[0]["messages"][1] == {"role": "assistant", "content": "a", "thinking": "why"}
    assert refused(chat(content="<think>why"), "chat").kind == "unclosed <think>"
    assert "messages[1].content has <think>" in str(refused(chat(content="<think>why"), "chat"))
    both = chat(content="<think>why</think>a", reasoning="other")
    assert refused(both, "chat").kind == "thinking twice"


def test_empty_tags_beside_given_reasoning_are_taken_away() -> None:
    rows, notices = made(chat(content="<think></think>a", thinking="why"), "chat")
    assert not notices
    assert rows[0]["messages"][1] == {"role": "assistant", "content": "a", "thinking": "why"}
    rows, notices = made(chat(content="<think></think>a"), "chat")
    assert "thinking" not in rows[0]["messages"][1]
    assert notices == {EMPTY_THINK: 1}


def test_nulls_in_a_message_are_as_if_the_key_were_not_there() -> None:
    row = chat(content="a", thinking=None, weight=None, tool_calls=None)
    rows, notices = made(row, "chat")
    assert rows[0]["messages"][1] == {"role": "assistant", "content": "a"}
    assert not notices
    assert recognise(row, "x:1") == "chat"


def test_half_a_character_is_a_bad_row_and_not_a_crash() -> None:
    said = refused({"question": "q", "answer": "a\ud83d"}, "question_answer")
    assert (said.kind, str(said)) == (
        "half a character",
        "answer holds '\\ud83d', half of a character",
    )


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, "missing answer"),
        (3, "answer is not text"),
        (" ", "empty answer"),
        ("<think>a</think> ", "empty answer"),
        ("<think>a", "unclosed <think>"),
        ("a</think>b", "unopened </think>"),
        ("b<think>a</think>c", "text before <think>"),
        ("<think>a</think>b</think>", "several <think>"),
        ("<|end|>", "control token"),
    ],
)
def test_every_defect_has_its_kind(answer: Any, kind: str) -> None:
    assert refused({"question": "q", "answer": answer}, "question_answer").kind == kind


def test_a_message_of_parts_is_its_text_and_its_reasoning() -> None:
    question = [{"type": "text", "text": "What"}, {"type": "text", "value": "is it?"}]
    answer = [{"type": "reasoning", "value": "Hm."}, {"type": "text", "value": "This."}]
    row = {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }
    assert FORMS["chat"].messages(row, Counter()) == [
        {"role": "user", "content": "What\nis it?"},
        {"role": "assistant", "content": "This.", "thinking": "Hm."},
    ]


@pytest.mark.parametrize("part", [{"type": "tool_call", "value": "{}"}, "text", {"type": "text"}])
def test_a_part_that_cannot_be_learned_is_named_by_its_kind(part: Any) -> None:
    row = {"messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(BadRow, match=r"messages\[0\]\.content has a part of type"):
        FORMS["chat"].messages(row, Counter())

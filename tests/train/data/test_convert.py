import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn import QUICK
from train.data.convert import Report, convert
from train.errors import InputError
from train.recipe import DataConfig

ROOT = Path(__file__).parents[3]
QUESTION = {"question": "首都は？", "answer": "<think>国の都市だ。</think>キャンベラです。"}


def converted(
    tmp_path: Path, *rows: Any, config: DataConfig | None = None
) -> tuple[list[list[dict[str, Any]]], Report]:
    """The messages written for `rows` (objects, or raw lines as bytes), and the report."""
    source = tmp_path / "rows.jsonl"
    source.write_bytes(
        b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows)
    )
    report = convert([source], config or DataConfig(train=""), tmp_path / "out", "train")
    lines = (tmp_path / "out/train.head.jsonl").read_text().splitlines()
    return [json.loads(line)["messages"] for line in lines], report


def refusal(tmp_path: Path, *rows: Any, config: DataConfig | None = None) -> str:
    with pytest.raises(InputError) as caught:
        converted(tmp_path, *rows, config=config)
    return str(caught.value)


def test_thinking_is_taken_out_of_the_answer(tmp_path: Path) -> None:
    rows, _ = converted(tmp_path, QUESTION)
    assert rows == [
        [
            {"role": "user", "content": "首都は？"},
            {"role": "assistant", "content": "キャンベラです。", "thinking": "国の都市だ。"},
        ]
    ]


def test_the_system_message_holds_reasoning_language_and_persona(tmp_path: Path) -> None:
    config = DataConfig(train="", reasoning_language="Japanese", persona="You are kind.")
    rows, _ = converted(tmp_path, QUESTION, config=config)
    content = "reasoning language: Japanese\n\nYou are kind."
    assert rows[0][0] == {"role": "system", "content": content}


def test_a_rows_own_system_text_takes_the_place_of_the_persona(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "system", "content": "A bicycle shop."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
        ]
    }
    config = DataConfig(train="", reasoning_language="Japanese", persona="You are kind.")
    rows, _ = converted(tmp_path, row, config=config)
    assert rows[0][0]["content"] == "reasoning language: Japanese\n\nA bicycle shop."


def test_a_conversation_gives_one_row_per_answer_and_only_the_last_keeps_its_thinking(
    tmp_path: Path,
) -> None:
    turns = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "a", "thinking": "first"},
        {"role": "user", "content": "2"},
        {"role": "assistant", "content": "b", "thinking": "second"},
    ]
    rows, _ = converted(tmp_path, {"messages": turns})
    assert [len(row) for row in rows] == [2, 4]
    assert rows[0][1]["thinking"] == "first"
    assert "thinking" not in rows[1][1]
    assert rows[1][3]["thinking"] == "second"


def test_answers_of_weight_0_are_context_and_not_learned(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "a", "weight": 0},
        {"role": "user", "content": "2"},
        {"role": "assistant", "content": "b", "weight": 1},
    ]
    rows, report = converted(tmp_path, {"messages": turns})
    assert report.form == "azure_openai"
    assert [[m["content"] for m in row] for row in rows] == [["1", "a", "2", "b"]]
    assert all("weight" not in message for message in rows[0])


def test_parquet_and_jsonl_hold_the_same_rows(tmp_path: Path) -> None:
    rows, _ = converted(tmp_path, QUESTION, {"question": "x", "answer": "y"})
    stored = pq.read_table(tmp_path / "out/train.parquet").to_pylist()
    without_nulls = [
        [{k: v for k, v in m.items() if v is not None} for m in row["messages"]] for row in stored
    ]
    assert without_nulls == rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "x", "answer": "<think>a"}, "<think> without </think>"),
        ({"question": "x", "answer": "a</think>b"}, "</think> without <think>"),
        ({"question": "x", "answer": "b<think>a</think>c"}, "text before <think>"),
        ({"question": "x", "answer": "<think>a</think>b<think>c</think>"}, "more than one <think>"),
        ({"question": "x", "answer": "<think>a</think> "}, "answer is empty after </think>"),
        ({"question": "x", "answer": " "}, "answer is empty"),
        ({"question": "", "answer": "y"}, "question is empty"),
        ({"question": 3, "answer": "y"}, "question is int, not text"),
        ({"question": "x"}, "answer is missing"),
        ({"question": "x<|end|>", "answer": "y"}, "question holds <|end|>, a control token"),
        (b"{broken", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"question": "\xff"}', "not UTF-8 at byte 14"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_reason(tmp_path: Path, row: Any, reason: str) -> None:
    said = refusal(tmp_path, QUESTION, row)
    assert f"{tmp_path / 'rows.jsonl'}:2: " in said
    assert reason in said
    assert "1 of 2 rows are bad, data.max_bad_rows allows 0" in said


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"role": "robot", "content": "x"}], "messages[0].role is 'robot'"),
        ([{"role": "user", "content": ""}], "messages[0].content is empty"),
        ([{"role": "user", "content": "x"}], "no assistant message"),
        ([{"role": "assistant", "content": "x"}], "no user message before the first answer"),
        ([{"role": "user", "content": "x", "weight": 1}], "only assistants have one"),
        ([{"role": "user", "content": [{"type": "text"}]}], "content has a part of type"),
        ([], "not a list of messages"),
        (["x"], "messages[0] is not an object"),
    ],
)
def test_a_bad_message_is_named_by_its_index(tmp_path: Path, turns: Any, reason: str) -> None:
    assert reason in refusal(tmp_path, {"messages": turns})


def test_bad_rows_within_the_allowance_are_counted_and_passed_over(tmp_path: Path) -> None:
    config = DataConfig(train="", max_bad_rows=1)
    rows, report = converted(tmp_path, QUESTION, {"question": "x"}, config=config)
    assert (len(rows), report.read, report.bad) == (1, 2, 1)
    assert any("rows.jsonl:2: answer is missing" in line for line in report.lines())


def test_a_refused_conversion_leaves_no_file(tmp_path: Path) -> None:
    refusal(tmp_path, {"question": "x"})
    assert list((tmp_path / "out").iterdir()) == []


def test_only_the_first_bad_rows_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    said = refusal(tmp_path, QUESTION, *[{"question": "x"}] * 30)
    assert said.count("answer is missing") == 20
    assert "30 of 31 rows are bad" in said


def test_unknown_columns_and_missing_reasoning_are_said_aloud(tmp_path: Path) -> None:
    _, report = converted(
        tmp_path,
        {**QUESTION, "source": "me"},
        {"question": "x", "answer": "y"},
        {"question": "x", "answer": "<think></think>y"},
    )
    said = "\n".join(report.lines())
    assert "column 'source' is not used" in said
    assert "answer without <think>" in said
    assert "<think></think> is empty" in said


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    rows, report = converted(tmp_path, b"\xef\xbb\xbf" + json.dumps(QUESTION).encode(), b"", b" ")
    assert (len(rows), report.read) == (1, 1)


def test_rows_of_no_known_form_are_refused_with_the_known_forms(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"instruction": "x", "output": "y"})
    assert "rows.jsonl:1: no known form has the keys instruction, output" in said
    assert "question+answer" in said


def test_a_named_form_is_not_guessed(tmp_path: Path) -> None:
    config = DataConfig(train="", form="dialogue_summary")
    assert "text is missing" in refusal(tmp_path, QUESTION, config=config)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        convert([tmp_path / "nope.jsonl"], DataConfig(train=""), tmp_path, "train")
    assert "no row to train on" in refusal(tmp_path, b"")


@pytest.mark.parametrize(
    ("name", "form", "least"),
    [
        ("japanese_reasoning", "question_answer", 200),
        ("chat_messages", "chat", 20),
        ("dialogue_summary", "dialogue_summary", 20),
        ("azure_openai_chat", "azure_openai", 20),
        ("preference_pairs", "preference", 20),
    ],
)
def test_every_sample_converts_without_a_bad_row(
    tmp_path: Path, name: str, form: str, least: int
) -> None:
    report = convert([ROOT / f"data/{name}.jsonl"], DataConfig(train=""), tmp_path, "train")
    assert (report.form, report.bad) == (form, 0)
    assert report.written >= least


def test_every_turn_is_learned_with_its_reasoning_which_harmony_would_drop(
    tmp_path: Path, tokenizer: Any
) -> None:
    """If the first half fails, the template has changed, and turns need not be split any more."""
    thoughts = ["一つ目の考え。", "二つ目の考え。"]
    conversation: list[dict[str, str]] = []
    for thought in thoughts:
        conversation.append({"role": "user", "content": "質問"})
        conversation.append({"role": "assistant", "content": "答え", "thinking": thought})
    whole = tokenizer.apply_chat_template(conversation, tokenize=False)
    assert [thought in whole for thought in thoughts] == [False, True]
    rows, _ = converted(tmp_path, {"messages": conversation})
    learned = [tokenizer.apply_chat_template(row, tokenize=False) for row in rows]
    assert [thought in text for thought, text in zip(thoughts, learned, strict=True)] == [True] * 2


ANY = st.recursive(
    st.sampled_from(
        (None, True, 0, -1.5, "", "x", "<think>", "</think>", "\ud800", "user", 10**30)
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("messages", "role", "content", "prompt", "chosen", "text", "answer")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
LINES = st.lists(
    st.one_of(
        st.dictionaries(
            st.sampled_from(
                ("question", "answer", "messages", "prompt", "chosen", "rejected", "text")
            ),
            ANY,
        ).map(lambda row: json.dumps(row).encode()),
        ANY.map(lambda row: json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")),
        st.binary(max_size=30),
        st.just(json.dumps(QUESTION).encode()),
    ),
    max_size=4,
)


@QUICK
@given(LINES, st.sampled_from((".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz")))
def test_any_file_of_rows_is_converted_or_refused_by_sentences(
    tmp_path: Path, lines: list[bytes], kind: str
) -> None:
    source = tmp_path / f"rows{kind}"
    source.write_bytes(b"\n".join(lines))
    for allowed in (0, 99):
        config = DataConfig(train="", max_bad_rows=allowed)
        try:
            assert convert([source], config, tmp_path / "out", "train").written > 0
        except InputError as error:
            assert "Traceback" not in str(error)

"""What Azure OpenAI refuses of a file of rows is said before anything is uploaded."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.azure.openai import validate
from scripts.errors import UsageError
from tests.scripts.azure.openai.conftest import write_rows
from tests.tree import ROOT

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
PICTURE = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ],
}


def write(path: Path, *rows: Any, bom: bool = True) -> Path:
    text = "\n".join(json.dumps(row) for row in rows)
    path.write_text(text, encoding="utf-8-sig" if bom else "utf-8")
    return path


def test_a_file_as_we_write_it_is_taken(tmp_path: Path) -> None:
    facts = validate.check(write_rows(tmp_path / "rows.jsonl"))
    assert (facts.rows, facts.images, facts.weighted) == (12, 0, 0)


def test_the_sample_with_weights_is_taken_once_it_has_its_mark(tmp_path: Path) -> None:
    sample = ROOT / "data/azure_openai_chat.jsonl"
    facts = validate.check(validate.with_bom(sample, tmp_path))
    assert facts.rows == 20
    assert (tmp_path / sample.name).read_bytes().startswith(codecs.BOM_UTF8)


def test_a_file_without_the_mark_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", bom=False)
    with pytest.raises(UsageError, match="byte-order mark"):
        validate.check(path)
    made = validate.with_bom(path, tmp_path / "mended")
    assert validate.check(made).rows == 12
    assert validate.with_bom(made, tmp_path / "again") == made


def test_nine_rows_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="9 rows: Azure OpenAI takes at least 10"):
        validate.check(write_rows(tmp_path / "rows.jsonl", 9))
    assert validate.check(tmp_path / "rows.jsonl", least=1).rows == 9


def test_a_file_of_512_mb_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(512_000_000)
    with pytest.raises(UsageError, match="less than 512 MB"):
        validate.check(path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "q"}, "no messages"),
        ({"messages": []}, "no messages"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "role 'bot'"),
        ({"messages": [USER, {**ANSWER, "weight": 2}]}, "weight 2; it must be 0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": True}]}, "weight True"),
        ({"messages": [{**USER, "weight": 0}, ANSWER]}, "only assistant messages"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "nothing is learned"),
        ({"messages": [ANSWER, USER]}, "last message is not the assistant's"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "has no text"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}, ANSWER]}, "kind 'audio'"),
        ({"messages": [USER, {**PICTURE, "role": "assistant"}]}, "answers are text"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: Any, words: str) -> None:
    good = {"messages": [USER, ANSWER]}
    path = write(tmp_path / "rows.jsonl", *[good] * 10, row)
    with pytest.raises(UsageError) as caught:
        validate.check(path)
    assert "line 11: " in str(caught.value) and words in str(caught.value)


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages"\n', encoding="utf-8-sig")
    with pytest.raises(UsageError, match="line 1: it is no JSON"):
        validate.check(path)


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + "ä".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        validate.check(path)


def test_rows_with_pictures_weights_and_calls_are_taken(tmp_path: Path) -> None:
    call = {"role": "assistant", "tool_calls": [{"id": "1"}], "weight": 0}
    row = {"messages": [PICTURE, call, {"role": "tool", "content": "42"}, ANSWER]}
    path = write(tmp_path / "rows.jsonl", *[row] * 10)
    facts = validate.check(path)
    assert (facts.images, facts.weighted) == (10, 10)
    assert validate.is_vision(path)
    assert not validate.is_vision(write_rows(tmp_path / "plain.jsonl"))

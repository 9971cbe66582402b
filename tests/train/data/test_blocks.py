"""Every kind of file gives the same rows, in bounded pieces, and says where a bad one stands."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.data import arrays, blocks, convert
from train.data.convert import read
from train.errors import InputError
from train.recipe import DataConfig

ROWS: list[dict[str, Any]] = [
    {"question": f"質問{i}", "answer": f'<think>考え, {i}\n</think>答え"{i}"'} for i in range(50)
]
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking": "c"}]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def converted(
    tmp_path: Path, name: str, content: bytes, bad: int = 0
) -> tuple[Any, convert.Report]:
    (tmp_path / name).write_bytes(content)
    config = DataConfig(train="", max_bad_rows=bad)
    report = convert.convert([tmp_path / name], config, tmp_path / "out", "train")
    return list(read(tmp_path / "out/train.parquet")), report


def refusal(tmp_path: Path, name: str, content: bytes) -> str:
    with pytest.raises(InputError) as caught:
        converted(tmp_path, name, content)
    return str(caught.value)


@pytest.fixture
def expected(tmp_path: Path) -> Any:
    return converted(tmp_path, "expected.jsonl", as_lines(ROWS))[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", as_lines(ROWS)),
        ("rows.json", json.dumps(ROWS).encode()),
        ("rows.json", b"\xef\xbb\xbf \n" + json.dumps(ROWS, indent=2).encode() + b"\n"),
        ("rows.csv", as_csv(ROWS)),
        ("rows.csv", b"\xef\xbb\xbf" + as_csv(ROWS)),
        ("rows.jsonl.gz", gzip.compress(as_lines(ROWS))),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        ("rows.CSV.gz", gzip.compress(as_csv(ROWS))),
    ],
)
@pytest.mark.parametrize("size", [100, 4 << 20])
def test_every_kind_gives_the_same_rows_whatever_the_block(
    tmp_path: Path,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    size: int,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    monkeypatch.setattr(arrays, "CHUNK", size)
    rows, report = converted(tmp_path, name, content)
    assert rows == expected
    assert (report.read, report.bad) == (50, 0)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary("int32", "string")])
def test_parquet_gives_the_same_rows_whatever_its_text_type(
    tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 7)
    schema = pa.schema({"question": kind, "answer": kind, "score": pa.float32()})
    table = pa.Table.from_pylist([{**row, "score": 1.0} for row in ROWS], schema=schema)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=20)
    config = DataConfig(train="")
    report = convert.convert([tmp_path / "rows.parquet"], config, tmp_path / "out", "train")
    assert list(read(tmp_path / "out/train.parquet")) == expected
    assert [f"{note} ({n})" for note, n in report.notices.items()] == [
        f"{tmp_path}/rows.parquet: column 'score' is not used by the form question_answer (50)"
    ]


def test_messages_from_parquet_pass_with_the_nulls_that_fill_their_structs(tmp_path: Path) -> None:
    turns = [TURNS, [*TURNS, {"role": "user", "content": "d", "weight": None, "name": "x"}]]
    pq.write_table(pa.table({"messages": pa.array(turns)}), tmp_path / "rows.parquet")
    config = DataConfig(train="")
    report = convert.convert([tmp_path / "rows.parquet"], config, tmp_path / "out", "train")
    assert report.form == "chat"
    assert list(read(tmp_path / "out/train.parquet")) == [TURNS, TURNS]
    assert report.notices["message key 'name' is not used"] == 1


def test_a_bad_row_is_named_where_it_stands_in_its_kind_of_file(tmp_path: Path) -> None:
    bad = [ROWS[0], {"question": "a\nb", "answer": "x"}, {"question": "q", "answer": " "}]
    assert "rows.csv:6: answer is empty" in refusal(tmp_path, "rows.csv", as_csv(bad))
    assert "rows.json: row 3: answer is empty" in refusal(
        tmp_path, "rows.json", json.dumps(bad).encode()
    )
    pq.write_table(pa.Table.from_pylist(bad), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet: row 3: answer is empty"):
        convert.convert([tmp_path / "rows.parquet"], DataConfig(train=""), tmp_path, "train")


def test_a_csv_row_that_is_wrong_is_passed_over_and_the_next_ones_read(tmp_path: Path) -> None:
    content = b'question,answer\na,b,c\n\nx,\xff\n"q"uote,y\ngood,row\n'
    rows, report = converted(tmp_path, "rows.csv", content, bad=3)
    assert [row[0]["content"] for row in rows] == ["good"]
    assert report.defects == {"wrong number of fields": 1, "not UTF-8": 1, "not CSV": 1}
    assert [line.split(":")[1] for line in report.bad_rows] == ["2", "4", "5"]


def test_texts_longer_than_the_csv_modules_own_limit_are_read(tmp_path: Path) -> None:
    rows, _ = converted(tmp_path, "rows.csv", b"question,answer\nq," + b"a" * 200_000)
    assert len(rows[0][1]["content"]) == 200_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[{"question": "q", "answer": "a"}', "row 2: the end of the file stands where"),
        (b'[{"question": "q", "answer": "a"} {}]', "row 2: { stands where , or ] must"),
        (b'[{"question": "q", "answer": "a"}, {"question]', "row 2: not JSON (Unterminated"),
        (b'[{"question": "q", "answer": "a"}] x', "row 2: text after the end of the array"),
        (b'[{"question": "\xff"}]', "row 1: not UTF-8"),
        (b"[" * 100_000, "row 1: nested too deeply"),
        (b"[1]", "rows.json: row 1: not a JSON object"),
        (b"[]", "no row to train on"),
    ],
)
def test_a_broken_array_is_refused_with_the_row_where_it_breaks(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    assert reason in refusal(tmp_path, "rows.json", content)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.parquet", b"PAR1 not", "is not Parquet"),
        ("rows.jsonl.gz", b"plain", "is not a whole gzip file"),
        ("rows.jsonl.gz", gzip.compress(as_lines(ROWS))[:-20], "is not a whole gzip file"),
        ("rows.csv", b"a,a\n1,2\n", "the header has the column 'a' twice"),
        ("rows.csv", b"", "no row to train on"),
        ("rows.csv", b"question,answer\n", "no row to train on"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    assert reason in refusal(tmp_path, name, content)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    monkeypatch.setattr(blocks, "LONGEST_ROW", 1000)
    said = refusal(tmp_path, "rows.jsonl", as_lines(ROWS[:2]) + b"[" * 5000)
    assert "rows.jsonl:3: the line is longer" in said

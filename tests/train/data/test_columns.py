"""The columnar path against forms.py: the same rows, defects, notices and order for any rows."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from train.data import blocks, convert
from train.data.convert import Report
from train.data.forms import FORMS
from train.recipe import DataConfig

PARTS = ["<think>", "</think>", "think>", "a", " ", "\n", "　", "</", "<"]
TEXTS = [
    *["".join(parts) for n in range(4) for parts in itertools.product(PARTS, repeat=n)],
    *("\x1c<think>a</think>b\x85", "x<|end|>", "<|x", "a|b", "\u2003", "\u200b", "\ufeff", "é "),
    *("<think>　\n考える\u00a0</think>\u3000答え\u2028", "\x00", "<think>\x00</think>\x00", "😀"),
]
ODD_VALUES: list[Any] = [None, 3, 1.5, True, [], {}, ["a"], "2024-01-01", "\ud800", "\udc00x"]
EVERY_CHARACTER = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def both_ways(
    tmp_path: Path,
    lines: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    config: DataConfig,
    *,
    pairs: bool = False,
) -> Report:
    """Convert `lines` with and without columns; assert that all that comes of it is equal."""
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\n".join(lines))
    made = {}
    for way in ("columns", "rows"):
        if way == "rows":
            monkeypatch.setattr(blocks.Lines, "columns", lambda *_: None)
        report = convert.convert([source], config, tmp_path / way, "train", pairs=pairs)
        made[way] = (report, pq.read_table(tmp_path / way / "train.parquet").to_pylist())
    assert made["columns"][0] == made["rows"][0]
    assert made["columns"][1] == made["rows"][1]
    return made["rows"][0]


def config(form: str, language: str | None = "Japanese") -> DataConfig:
    return DataConfig(
        train="",
        form=form,  # type: ignore[arg-type]
        reasoning_language=language,
        max_bad_rows=10**9,
    )


def line(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=random.Random(str(row)).random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


@pytest.fixture(autouse=True)
def refuse_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bad row is named, so that file and line of each are compared."""
    monkeypatch.setattr(convert, "NAMED_BAD_ROWS", 10**9)


@pytest.mark.parametrize("language", [None, "Japanese"])
def test_every_short_answer_is_split_as_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str | None
) -> None:
    lines = [line({"question": "q", "answer": text}) for text in TEXTS]
    block = blocks.Lines(tmp_path, 1, b"\n".join(lines) + b"\n")
    assert block.columns(["question", "answer"]) is not None
    report = both_ways(tmp_path, lines, monkeypatch, config("question_answer", language))
    assert report.read == len(TEXTS)
    assert report.written > 100
    assert {"unclosed <think>", "several <think>", "empty answer"} <= report.defects.keys()


@pytest.mark.parametrize(
    ("form", "pairs"),
    [
        ("question_answer", False),
        ("dialogue_summary", False),
        ("preference", False),
        ("preference", True),
    ],
)
def test_random_odd_rows_give_what_they_give_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, pairs: bool
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4000)
    random.seed(form)
    names = sorted(FORMS[form].columns)
    plain = ["a", "<think>a</think>b", " <think> a </think> b ", "b", "<think></think>c"]
    lines = []
    for i in range(3000):
        odd = random.random() < (0.3 if i < 1500 else 0.01)
        row: dict[str, Any] = {name: random.choice(TEXTS if odd else plain) for name in names}
        if random.random() < 0.01:
            row[random.choice(names)] = random.choice(ODD_VALUES)
        if random.random() < 0.01:
            row.pop(random.choice(names))
        if random.random() < 0.3:
            row["extra"] = random.choice([None, 1, "x"] if i < 1000 else [None, 7])
        lines.append(line(row))
        if random.random() < 0.004:
            lines.append(
                random.choice(
                    [b"", b" ", b"{", b"[1]", b"{}{}", b'{"a":\n1}', b"\xff", b"{}\0", b"null"]
                )
            )
    report = both_ways(tmp_path, lines, monkeypatch, config(form), pairs=pairs)
    assert report.bad > 100
    assert report.written > 1000


@pytest.mark.parametrize(
    "strange",
    [
        b"",
        b"\r",
        b'{"question": "a", "answer": "b"}{"question": "c", "answer": "d"}',
        b'{"question": "a"\n, "answer": "b"}',
        b' {"question": "a", "answer": "b"}',
        b'{"question": "a", "answer": "b"} \r',
        b'{"question": "a", "answer": "b", "answer": "c"}',
        b'{"question": "a", "answer": "b", "x": NaN}',
        b'{"question": "a", "answer": "b", "x": 1e999}',
        b'{"question": "a", "answer": "b", "x": 01}',
        b'{"question": "a\tb", "answer": "b"}',
        b'{"question": "a", "answer": "\xed\xa0\x80"}',
        b'{"question": "a", "answer": "b", "\xff": 1}',
        b'{"question": "a", "answer": "b"}\0{"question": "a", "answer": "b"}',
        b'{"question": "a", "answer": "b", "x": {"y": 1, "y": 2}}',
        b'{"question": "a", "answer": "b", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"question": "a", "answer": "b", "x": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"question": "' + b"[{" * 2000 + b'", "answer": "b"}',
    ],
)
def test_a_strange_line_among_good_ones_is_read_as_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strange: bytes
) -> None:
    good = line({"question": "q", "answer": "<think>a</think>b"})
    both_ways(tmp_path, [good, strange, good], monkeypatch, config("question_answer"))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_plain_lines_of_either_ending_are_read_as_columns(end: bytes) -> None:
    raw = end.join([line({"question": "q", "answer": "a", "x": i}) for i in range(3)]) + end
    block = blocks.Lines(Path("rows.jsonl"), 1, raw)
    columns = block.columns(["question", "answer"])
    assert columns is not None
    assert columns["answer"].to_pylist() == ["a"] * 3
    assert block.unused(frozenset({"question", "answer"})) == {"x": 3}
    assert block.row(2)[0] == "rows.jsonl:3"


def test_blank_means_the_same_to_arrow_as_to_python() -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    spaces = pc.utf8_is_space(pa.array(EVERY_CHARACTER)).to_pylist()
    assert spaces == [c.isspace() for c in EVERY_CHARACTER]
    around = [f"{c}x{c}" for c in EVERY_CHARACTER if c.isspace() or ord(c) < 0x10000]
    assert pc.utf8_trim_whitespace(pa.array(around)).to_pylist() == [t.strip() for t in around]

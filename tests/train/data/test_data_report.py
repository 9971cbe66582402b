"""The dataset report: every figure against one counted by hand, or in the plainest way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.data import report as reports
from train.data.columns import PAIRS, ROWS
from train.data.convert import Report
from train.data.hashes import batches, prompts, whole
from train.data.report import Counted, describe, lines
from train.recipe import DataConfig

TOKENS = {"tokens": 100, "trained_tokens": 25, "truncated": 1, "fully_masked": 2, "longest": 700}


def row(question: str, answer: str, thinking: str | None = None) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, "thinking": thinking},
        ]
    }


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=ROWS), folder / f"{name}.parquet")


def lengths(folder: Path, name: str, values: list[int]) -> None:
    table = pa.table({"length": pa.array(values, pa.int32())})
    pq.write_table(table, folder / f"{name}.tokens.parquet")


def described(folder: Path, language: str | None = None, **conversions: Report) -> Any:
    config = DataConfig(train="", reasoning_language=language)
    report = describe(folder, config, {"train": Report(), **conversions}, {})
    assert json.loads((folder / "report.json").read_text()) == report
    return report


def test_duplicates_and_leakage_are_counted(tmp_path: Path) -> None:
    written(tmp_path, "train", [row("a", "1"), row("a", "1"), row("a", "2"), row("b", "1")])
    written(tmp_path, "validation", [row("a", "1"), row("b", "2"), row("b", "2"), row("c", "1")])
    report = described(tmp_path, validation=Report())
    assert report["train"]["duplicates"] == 1
    assert report["validation"]["duplicates"] == 1
    assert report["leakage"] == {"prompts": 3, "rows": 1, "of": 4}
    assert any("3 of 4 validation rows have a prompt" in line for line in lines(report))


def test_rows_that_differ_in_their_reasoning_alone_are_not_the_same(tmp_path: Path) -> None:
    written(tmp_path, "train", [row("a", "1", "x"), row("a", "1", "y"), row("a", "1")])
    report = described(tmp_path)
    assert report["train"]["duplicates"] == 0
    assert report["train"]["with_thinking"] == 2
    assert "leakage" not in report


def test_pairs_that_differ_in_their_rejected_answer_alone_are_not_the_same(tmp_path: Path) -> None:
    pairs = [
        {**row("a", "1"), "rejected": {"role": "assistant", "content": content}}
        for content in ("x", "y", "y")
    ]
    pq.write_table(pa.Table.from_pylist(pairs, schema=PAIRS), tmp_path / "train.parquet")
    assert described(tmp_path)["train"]["duplicates"] == 1


def test_hashes_do_not_depend_on_how_rows_are_cut_into_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "train", [row(f"q{i}", f"a{i}", "t" * (i % 3)) for i in range(100)])
    found = []
    for size in (4096, 7):
        monkeypatch.setattr("train.data.hashes.BATCH_ROWS", size)
        found.append(
            [
                np.concatenate([hash_of(batch) for batch in batches(tmp_path / "train.parquet")])
                for hash_of in (prompts, whole)
            ]
        )
    assert (found[0][0] == found[1][0]).all()
    assert (found[0][1] == found[1][1]).all()
    assert len(np.unique(found[0][0])) == 100


def test_the_prompt_is_the_first_user_message(tmp_path: Path) -> None:
    rows = [row("a", "1"), row("a", "1")]
    rows[1]["messages"] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    written(tmp_path, "train", rows)
    (batch,) = batches(tmp_path / "train.parquet")
    assert len(set(prompts(batch).tolist())) == 1
    assert len(set(whole(batch).tolist())) == 2


@pytest.mark.parametrize("limit", [1 << 22, 1000])
def test_duplicates_are_exact_up_to_the_limit_and_close_above_it(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(Counted, "LIMIT", limit)
    random = np.random.default_rng(0)
    distinct = random.integers(0, 2**64, 20_000, np.uint64)
    counted = Counted()
    for part in np.array_split(np.concatenate([distinct, distinct[:10_000]]), 37):
        counted.add(part)
        assert len(counted.hashes) <= limit
    counted.finish()
    assert counted.exact == (limit > 20_000)
    assert counted.duplicates() == pytest.approx(10_000, rel=0 if counted.exact else 0.2)


def test_the_tokens_have_a_histogram_of_four_bins_a_doubling(tmp_path: Path) -> None:
    written(tmp_path, "train", [row("a", "1")])
    lengths(tmp_path, "train", [3, 4, 7, 8, 15, 16, 700])
    report = describe(tmp_path, DataConfig(train=""), {"train": Report()}, {"train": TOKENS})
    tokens = report["train"]["tokens"]
    edges, counts = tokens["length"]["edges"], tokens["length"]["counts"]
    assert edges[:10] == [3, 4, 5, 6, 7, 8, 10, 12, 14, 16]
    assert edges[-2:] == [640, 768]
    assert counts[:10] == [1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    assert counts[-1] == 1
    assert len(counts) == len(edges) - 1
    assert tokens["trained_share"] == 0.25
    said = "\n".join(lines(report))
    assert "25.0% of them learned; 1 rows cut, 2 left out" in said
    assert "640–767: 1" in said


def test_the_language_of_the_reasoning_is_held_against_the_asked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "SAMPLED", 40)
    thinking = ["まず単位を確認してから計算する。"] * 3 + ["First let me check the units here."]
    written(tmp_path, "train", [row("a", "1", thinking[i // 50]) for i in range(200)])
    report = described(tmp_path, "Japanese")
    assert report["language"] == {
        "asked": "Japanese",
        "code": "ja",
        "sampled": 40,
        "found": {"ja": 30, "en": 10},
        "share": 0.75,
    }
    assert "reasoning in Japanese: 75.0% of 40 sampled rows (others: 10 en)" in lines(report)


def test_no_reasoning_and_unknown_languages_are_said_so(tmp_path: Path) -> None:
    written(tmp_path, "train", [row("a", "1")])
    assert "reasoning in Japanese: no row has reasoning" in lines(described(tmp_path, "Japanese"))
    written(tmp_path, "train", [row("a", "1", "nuqneH")])
    said = list(lines(described(tmp_path, "Klingon")))
    assert "reasoning in Klingon: not a language that can be recognised here" in said

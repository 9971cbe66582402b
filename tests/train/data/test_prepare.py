"""From a recipe to the files of a run, with the real tokenizer of the embedded model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from train.data.convert import read
from train.data.prepare import load, prepare, unchanged
from train.errors import InputError
from train.recipe import DataConfig, ModelConfig, Recipe, TrainingConfig

ROOT = Path(__file__).parents[3]
KWARGS = {"current_date": "2026-01-01"}


def recipe(method: Any = "sft", **data: Any) -> Recipe:
    return Recipe(
        name="test",
        method=method,
        model=ModelConfig(base="tiny"),
        data=DataConfig(**data),
        training=TrainingConfig(max_length=512),
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = (ROOT / "data/japanese_reasoning.jsonl").read_text(encoding="utf-8").splitlines()
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(lines[:40]), encoding="utf-8")
    return source


def test_rows_become_tokens_with_some_held_out_and_a_report(
    tmp_path: Path, rows: Path, tokenizer: Any
) -> None:
    asked = recipe(train=str(rows), validation_share=0.1, reasoning_language="Japanese")
    folder = tmp_path / "data"
    made = prepare(asked, folder, tokenizer, KWARGS, tmp_path)
    assert made.validation and made.messages_validation
    assert pq.read_metadata(made.train).num_rows == 36
    assert pq.read_metadata(made.validation).num_rows == 4
    assert len(list(read(made.messages_validation))) == 4
    assert made.report["validation"]["held_out"]
    assert made.report["leakage"] == {"prompts": 0, "rows": 0, "of": 4}
    assert made.report["language"]["share"] == 1.0
    assert sum(made.report["train"]["tokens"]["length"]["counts"]) == 36
    assert load(asked, folder) == made


def test_given_validation_rows_are_used_and_none_are_held_out(
    tmp_path: Path, rows: Path, tokenizer: Any
) -> None:
    asked = recipe(train=str(rows), validation=str(rows))
    made = prepare(asked, tmp_path / "data", tokenizer, KWARGS, tmp_path)
    assert made.report["train"]["rows"] == made.report["validation"]["rows"] == 40
    assert not made.report["validation"]["held_out"]
    assert made.report["leakage"] == {"prompts": 40, "rows": 40, "of": 40}


def test_nothing_is_held_out_with_a_share_of_0(tmp_path: Path, rows: Path, tokenizer: Any) -> None:
    asked = recipe(train=str(rows), validation_share=0.0)
    made = prepare(asked, tmp_path / "data", tokenizer, KWARGS, tmp_path)
    assert made.validation is made.messages_validation is None
    assert made.report["train"]["rows"] == 40


def test_pairs_are_not_tokenised_and_keep_both_answers(tmp_path: Path) -> None:
    asked = recipe("dpo", train=str(ROOT / "data/preference_pairs.jsonl"))
    made = prepare(asked, tmp_path / "data", None, KWARGS, tmp_path)
    assert made.train == made.messages_train
    assert pq.read_schema(made.train).names == ["messages", "rejected"]
    assert made.validation
    assert "tokens" not in made.report["train"]


def test_a_folder_is_whole_only_when_the_report_is_there(
    tmp_path: Path, rows: Path, tokenizer: Any
) -> None:
    asked = recipe(train=str(rows))
    folder = tmp_path / "data"
    assert load(asked, folder) is None
    made = prepare(asked, folder, tokenizer, KWARGS, tmp_path)
    (folder / "report.json").unlink()
    assert load(asked, folder) is None
    assert prepare(asked, folder, tokenizer, KWARGS, tmp_path) == made


def test_a_second_try_after_a_lost_machine_gives_the_same_split(
    tmp_path: Path, rows: Path, tokenizer: Any
) -> None:
    asked = recipe(train=str(rows))
    one, other = tmp_path / "one", tmp_path / "other"
    whole = prepare(asked, one, tokenizer, KWARGS, tmp_path)
    shutil.copytree(one, other)
    (other / "report.json").unlink()
    (other / "train.parquet").write_bytes(b"half written")
    again = prepare(asked, other, tokenizer, KWARGS, tmp_path)
    assert list(read(again.messages_train)) == list(read(whole.messages_train))
    assert again.report == whole.report


def test_changed_rows_are_noticed(tmp_path: Path, rows: Path, tokenizer: Any) -> None:
    asked = recipe(train=str(rows))
    folder = tmp_path / "data"
    assert unchanged(asked, folder, tmp_path)
    prepare(asked, folder, tokenizer, KWARGS, tmp_path)
    assert unchanged(asked, folder, tmp_path)
    assert json.loads((folder / "sources.json").read_text()).keys() == {"train"}
    rows.write_text(rows.read_text() + "\n" + rows.read_text().splitlines()[0])
    assert not unchanged(asked, folder, tmp_path)


def test_a_missing_source_is_named_by_its_key(tmp_path: Path, rows: Path) -> None:
    asked = recipe(train=str(rows), validation="nope.jsonl")
    with pytest.raises(InputError, match=r"data\.validation: nope\.jsonl does not exist"):
        prepare(asked, tmp_path / "data", None, KWARGS, tmp_path)

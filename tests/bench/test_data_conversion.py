import json
from pathlib import Path

import pytest

from bench.data_conversion import SIDES, write
from bench.table import child


def test_the_rows_are_the_same_each_time_and_about_one_in_25_is_defective(tmp_path: Path) -> None:
    for name in ("one.jsonl", "other.jsonl"):
        write(tmp_path / name, 3000)
    text = (tmp_path / "one.jsonl").read_text(encoding="utf-8")
    assert text == (tmp_path / "other.jsonl").read_text(encoding="utf-8")
    answers = [json.loads(line)["answer"] for line in text.splitlines()]
    good = [a for a in answers if a.count("think>") == 2 and a.partition("</think>")[2].strip()]
    assert 0.95 < len(good) / len(answers) < 0.97
    assert 280 < len(text) / len(answers) < 380


@pytest.mark.slow
def test_every_side_makes_the_same_messages_of_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", 3000)
    source = ["--source", str(tmp_path / "rows.jsonl")]
    made = [child("bench.data_conversion", ["--side", side, *source])[0] for side in SIDES]
    assert {side["read"] for side in made} == {3000}
    assert len({side["digest"] for side in made}) == 1

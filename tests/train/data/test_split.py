import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.data import hashes, split
from train.data.columns import ROWS
from train.data.convert import read
from train.data.split import hold_out


def written(folder: Path, prompts: list[str]) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": f"answer {i}"},
            ]
        }
        for i, prompt in enumerate(prompts)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=ROWS), folder / "train.parquet")


def prompts_of(parquet: Path) -> list[str]:
    return [row[1]["content"] for row in read(parquet)]


def test_a_share_is_held_out_and_no_row_is_lost(tmp_path: Path) -> None:
    prompts = [f"prompt {i}" for i in range(1000)]
    written(tmp_path, prompts)
    assert hold_out(tmp_path, 0.05) == (950, 50)
    train = prompts_of(tmp_path / "train.parquet")
    validation = prompts_of(tmp_path / "validation.parquet")
    assert (len(train), len(validation)) == (950, 50)
    assert sorted(train + validation) == sorted(prompts)


def test_rows_of_one_prompt_stay_on_one_side(tmp_path: Path) -> None:
    written(tmp_path, [f"prompt {i % 40}" for i in range(1000)])
    kept, held = hold_out(tmp_path, 0.2)
    train = prompts_of(tmp_path / "train.parquet")
    validation = prompts_of(tmp_path / "validation.parquet")
    assert (len(train), len(validation)) == (kept, held) == (800, 200)
    assert not set(train) & set(validation)


def test_the_order_of_rows_does_not_change_the_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"prompt {i % 300}" for i in range(500)]
    written(tmp_path / "one", prompts)
    written(tmp_path / "other", random.Random(0).sample(prompts, len(prompts)))
    hold_out(tmp_path / "one", 0.1)
    monkeypatch.setattr(hashes, "BATCH_ROWS", 7)
    hold_out(tmp_path / "other", 0.1)
    one, other = (prompts_of(tmp_path / name / "validation.parquet") for name in ("one", "other"))
    assert sorted(one) == sorted(other)


def test_no_more_than_the_most_rows_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "MOST_ROWS", 20)
    written(tmp_path, [f"prompt {i}" for i in range(1000)])
    assert hold_out(tmp_path, 0.5) == (980, 20)


@pytest.mark.parametrize(
    ("prompts", "share", "sides"),
    [
        (["a", "b"], 0.01, (1, 1)),
        (["a", "b"], 0.99, (1, 1)),
        (["a", "a", "a", "b", "b"], 0.1, (3, 2)),
        (["a", "a", "a"], 0.5, (3, 0)),
        (["a", "b"], 0.0, (2, 0)),
    ],
)
def test_few_prompts_are_split_while_both_sides_get_one(
    tmp_path: Path, prompts: list[str], share: float, sides: tuple[int, int]
) -> None:
    written(tmp_path, prompts)
    assert hold_out(tmp_path, share) == sides
    assert (tmp_path / "validation.parquet").exists() == bool(sides[1])


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    written(tmp_path, ["a", "b", "c"])
    hold_out(tmp_path, 0.3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.parquet", "validation.parquet"]

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.data.blocks import blocks
from train.data.sources import resolve
from train.data.splits import parse
from train.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = f"hf://owner/name@{COMMIT}"


def table(path: Path, *numbers: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    messages = [[{"role": "user", "content": str(n)}] for n in numbers]
    rows = {"prompt": [str(n) for n in numbers], "messages": messages}
    pq.write_table(pa.table(rows), path, row_group_size=3)


def lines(path: Path, *numbers: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": str(n)}) + "\n" for n in numbers))
    return path


def read(spec: str, cache: Path) -> list[int]:
    files = resolve(spec, "data.train", cache)
    rows = [row for file in files for block in blocks(file) for _, row in block.rows()]
    return [int(row["prompt"]) for row in rows if isinstance(row, dict)]


def refusal(spec: str, cache: Path) -> str:
    with pytest.raises(InputError) as caught:
        resolve(spec, "data.train", cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a dataset of the hub as its own files lie there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    data = tmp_path / f"cache/hub/datasets--owner--name/snapshots/{COMMIT}/data"
    table(data / "train_sft-00000-of-00002-a3ec.parquet", *range(100))
    table(data / "train_sft-00001-of-00002-0a18.parquet", *range(100, 200))
    table(data / "train_gen-00000-of-00001-1.parquet", 900)
    table(data / "test_sft-00000-of-00001-2.parquet", 901, 902)
    return tmp_path / "cache"


def test_a_split_of_the_hub_is_its_own_files(hub: Path) -> None:
    assert read(f"{HUB}#train_sft", hub) == list(range(200))
    assert read(f"{HUB}#test_sft", hub) == [901, 902]
    assert read(f"{HUB}/data#train_gen", hub) == [900]


@pytest.mark.parametrize(
    ("part", "first", "last"),
    [("[:1%]", 0, 1), ("[49%:51%]", 98, 101), ("[195:]", 195, 199), ("[99:101]", 99, 100)],
)
def test_a_part_of_a_split_is_rows_in_their_order_over_all_its_files(
    hub: Path, part: str, first: int, last: int
) -> None:
    assert read(f"{HUB}#train_sft{part}", hub) == list(range(first, last + 1))


def test_a_part_is_written_once_with_all_its_columns(hub: Path) -> None:
    (made,) = resolve(f"{HUB}#train_sft[:10]", "data.train", hub)
    before = made.stat().st_mtime_ns
    assert resolve(f"{HUB}#train_sft[:5%]", "data.train", hub) == [made]
    assert made.stat().st_mtime_ns == before
    rows = [row for block in blocks(made) for _, row in block.rows()]
    assert isinstance(rows[9], dict)
    assert rows[9]["messages"] == [{"role": "user", "content": "9"}]
    assert not list(made.parent.glob("*.part-*"))


def test_a_split_that_is_not_there_is_told_with_what_is(hub: Path) -> None:
    said = refusal(f"{HUB}#validation", hub)
    assert "has no files of a split validation" in said
    assert "data/train_sft-00000-of-00002-a3ec.parquet" in said


def test_files_of_this_machine_have_splits_and_parts_too(tmp_path: Path) -> None:
    rows = lines(tmp_path / "rows.jsonl", *range(10))
    assert read(f"{rows}#[:30%]", tmp_path) == [0, 1, 2]
    assert read(f"{rows}#[8:]", tmp_path) == [8, 9]
    (tmp_path / "train").mkdir()
    lines(tmp_path / "train/1.jsonl", 20)
    lines(tmp_path / "test.jsonl", 30)
    assert read(f"{tmp_path}#train", tmp_path) == [20]
    assert read(f"{tmp_path}#test", tmp_path) == [30]
    assert read(f"{tmp_path}/*.jsonl#test", tmp_path) == [30]


def test_a_name_with_a_number_sign_is_a_name(tmp_path: Path) -> None:
    assert read(str(lines(tmp_path / "c#.jsonl", 1)), tmp_path) == [1]


@pytest.mark.parametrize("text", ["", "a b", "train[", "train[1%]", "train[:-5]", "train[x:y]"])
def test_what_is_no_split_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(InputError, match=r"write #name, #name\[:1%\]"):
        parse(text, f"hf://a/b@c#{text}", "data.train")


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    rows = lines(tmp_path / "rows.jsonl", 1, 2, 3)
    said = refusal(f"{rows}#[:1%]", tmp_path)
    assert "no row of the 3 that are there" in said


def test_a_bad_row_within_a_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"n": 1}\nnonsense\n{"n": 2}\n')
    said = refusal(f"{tmp_path / 'rows.jsonl'}#[:3]", tmp_path)
    assert "rows.jsonl:2: not JSON" in said


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("train.jsonl", True),
        ("train.jsonl.gz", True),
        ("data/train-00000-of-00001.parquet", True),
        ("train/0.parquet", True),
        ("default/train/0.parquet", True),
        ("data/train_sft-0.parquet", False),
        ("retrain.jsonl", False),
        ("data/untrain-0.parquet", False),
    ],
)
def test_which_files_belong_to_a_split(path: str, inside: bool) -> None:
    assert parse("train", "", "").has(Path(path)) is inside

from pathlib import Path

import pytest

from train.data.sources import fingerprint, resolve
from train.errors import InputError


def refusal(spec: str, tmp_path: Path, key: str = "data.train") -> str:
    with pytest.raises(InputError) as caught:
        resolve(spec, key, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.JSON", "a.csv", "a.parquet", "a.jsonl.gz", "a.json.gz", "a.csv.gz"]
)
def test_one_file_of_a_known_kind_is_itself(tmp_path: Path, name: str) -> None:
    made(tmp_path, name)
    assert resolve(str(tmp_path / name), "data.train", tmp_path) == [tmp_path / name]


def test_a_folder_is_all_files_of_rows_below_it_in_one_order(tmp_path: Path) -> None:
    made(tmp_path, "b.jsonl", "a/z.csv", "a/b.parquet", "README.md", ".a.jsonl", "_x/a.jsonl")
    found = resolve(str(tmp_path), "data.train", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "a/b.parquet",
        "a/z.csv",
        "b.jsonl",
    ]


def test_a_folder_whose_own_path_has_hidden_parts_is_read(tmp_path: Path) -> None:
    made(tmp_path, ".cache/rows/a.jsonl")
    assert len(resolve(str(tmp_path / ".cache/rows"), "data.train", tmp_path)) == 1


def test_a_pattern_is_what_it_matches(tmp_path: Path) -> None:
    made(tmp_path, "2.jsonl", "1.jsonl", "1.txt")
    found = resolve(str(tmp_path / "*"), "data.train", tmp_path)
    assert [path.name for path in found] == ["1.jsonl", "2.jsonl"]


def test_what_is_not_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    made(tmp_path, "notes.txt", "empty/notes.txt")
    assert "data.validation: nope.jsonl does not exist" in refusal(
        "nope.jsonl", tmp_path, "data.validation"
    )
    assert "no known kind; its name must end with .jsonl" in refusal(
        str(tmp_path / "notes.txt"), tmp_path
    )
    assert "holds no file of rows" in refusal(str(tmp_path / "empty"), tmp_path)
    assert "matches" in refusal(str(tmp_path / "*.csv"), tmp_path)


def test_a_hub_dataset_without_a_revision_is_told_how_to_pin_one(tmp_path: Path) -> None:
    said = refusal("hf://owner/name", tmp_path)
    assert "hf://owner/name@<commit id>" in said
    assert "dataset_info('owner/name').sha" in said
    assert "write hf://owner/name@revision" in refusal("hf://name", tmp_path)


def test_a_hub_dataset_that_cannot_be_had_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refusal("hf://owner/name@0123abc/sub/folder", tmp_path)
    assert said.startswith("data.train: hf://owner/name@0123abc/sub/folder could not be downloaded")
    assert "HF_TOKEN" in said


def test_a_hub_dataset_that_is_in_the_cache_is_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "cache/hub/datasets--owner--name/snapshots" / commit
    made(snapshot, "data/b.jsonl", "data/a.parquet", "other/c.jsonl", "README.md")
    spec = f"hf://owner/name@{commit}"
    names = [p.name for p in resolve(spec, "data.train", tmp_path / "cache")]
    assert names == ["a.parquet", "b.jsonl", "c.jsonl"]
    inside = resolve(f"{spec}/data", "data.train", tmp_path / "cache")
    assert [p.name for p in inside] == ["a.parquet", "b.jsonl"]
    one = resolve(f"{spec}/other/c.jsonl", "data.train", tmp_path / "cache")
    assert [p.name for p in one] == ["c.jsonl"]


@pytest.mark.parametrize("spec", ["azureml:rows:3", "azureml://datastores/x/paths/y"])
def test_cloud_data_is_read_where_the_job_mounts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    made(tmp_path, "rows.jsonl")
    monkeypatch.setenv("AZURE_ML_INPUT_validation", str(tmp_path))
    assert resolve(spec, "data.validation", tmp_path) == [tmp_path / "rows.jsonl"]
    said = refusal(spec, tmp_path, "data.train")
    assert "$AZURE_ML_INPUT_train" in said
    assert "give a local or mounted path" in said


def test_the_fingerprint_is_of_names_and_contents_and_not_of_folders(tmp_path: Path) -> None:
    made(tmp_path, "a/1.jsonl", "b/1.jsonl", "b/2.jsonl")
    first = fingerprint([tmp_path / "a/1.jsonl"])
    assert first == fingerprint([tmp_path / "b/1.jsonl"])
    assert first != fingerprint([tmp_path / "b/2.jsonl"])
    (tmp_path / "a/1.jsonl").write_text("{} ")
    assert first != fingerprint([tmp_path / "a/1.jsonl"])

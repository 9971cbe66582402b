from pathlib import Path

import pytest

from scripts import local_train
from scripts.errors import MachineError, UsageError
from scripts.settings import ROOT
from train.errors import InputError


def recipe_file(folder: Path, data: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"name: small\nmodel: {{base: tiny}}\ndata: {{train: '{data}'}}\n")
    return path


def test_a_data_file_that_is_not_there_is_told_before_anything_is_built(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, str(tmp_path / "nope.jsonl"))
    with pytest.raises(UsageError, match=r"data\.train names .*nope\.jsonl, which does not exist"):
        local_train.find_recipe(path, [])


def test_overrides_are_checked_on_this_machine_too(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "data/japanese_reasoning.jsonl")
    assert local_train.find_recipe(path, ["training.epochs=2"]).training.epochs == 2
    with pytest.raises(InputError, match="did you mean epochs"):
        local_train.find_recipe(path, ["training.epoch=2"])


def test_paths_are_found_relative_to_the_checkout_and_a_hub_id_is_no_path(tmp_path: Path) -> None:
    recipe = local_train.find_recipe(
        recipe_file(tmp_path, "data/japanese_reasoning.jsonl"), ["model.base=openai/gpt-oss-20b"]
    )
    assert local_train.files(recipe) == {"data.train": ROOT / "data/japanese_reasoning.jsonl"}
    recipe = local_train.find_recipe(
        recipe_file(tmp_path, "data/japanese_reasoning.jsonl"), [f"model.base={tmp_path}"]
    )
    assert local_train.files(recipe)["model.base"] == tmp_path


@pytest.mark.parametrize("rows", ["hf://a/b@c", "azureml:rows:1", "https://x.example/rows.jsonl"])
def test_rows_that_lie_elsewhere_are_no_path_either(tmp_path: Path, rows: str) -> None:
    assert local_train.files(local_train.find_recipe(recipe_file(tmp_path, rows), [])) == {}


def test_too_little_memory_is_said_with_both_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = local_train.find_recipe(
        path := recipe_file(tmp_path, "data/japanese_reasoning.jsonl"), []
    )
    monkeypatch.setattr(local_train, "free_memory", lambda: 10**9)
    with pytest.raises(MachineError, match=r"needs 2 GB of free memory, this machine has 1\.0"):
        local_train.train(None, recipe, path, [])  # type: ignore[arg-type]  # it is not reached

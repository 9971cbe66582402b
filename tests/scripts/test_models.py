import json
from pathlib import Path

import pytest

from scripts import models
from scripts.errors import MachineError, UsageError
from scripts.settings import GIGABYTE
from train import recipe as recipes

RECIPE = "name: small\nmodel: {base: tiny}\ndata: {train: data/rows.jsonl}\n"


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"0" * 1000)
    return folder


def finished_run(outputs: Path, recipe: str = RECIPE) -> Path:
    run = outputs / "small" / "20260101-000000-abcd"
    model_folder(run / "merged")
    (run / "metrics.json").write_text("{}")
    (run / "recipe.yaml").write_text(recipe)
    (outputs / "small" / "latest").symlink_to(run.name)
    return run


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(models, "OUTPUTS", tmp_path)
    return tmp_path


def load(path: Path, *overrides: str) -> recipes.Recipe:
    path.write_text(RECIPE)
    return recipes.load(path, overrides, {})


def test_the_newest_finished_run_is_the_one_that_latest_points_to(outputs: Path) -> None:
    recipe = load(outputs / "r.yaml")
    assert models.newest(recipe) is None
    run = finished_run(outputs)
    assert models.newest(recipe) == run


def test_a_changed_recipe_differs_but_moved_files_do_not(outputs: Path) -> None:
    run = finished_run(outputs, RECIPE.replace("data/rows", "/opt/homeport/data/rows"))
    assert not models.differs(load(outputs / "r.yaml"), run)
    assert models.differs(load(outputs / "r.yaml", "training.epochs=2"), run)


def test_what_a_run_does_not_write_down_makes_no_difference(outputs: Path) -> None:
    run = finished_run(outputs)
    more = ("data.test=data/more.jsonl", "rehearsal.prompt=hello", "cloud.max_hours=1")
    assert not models.differs(load(outputs / "r.yaml", *more), run)


def test_a_model_folder_is_served_under_the_name_that_training_gave_it(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "x")
    assert models.from_folder(folder).name == "x"
    (folder / "homeport.json").write_text(json.dumps({"name": "tiny-ja"}))
    assert models.from_folder(folder).name == "tiny-ja"


def test_a_runs_folder_stands_for_its_merged_model(outputs: Path) -> None:
    run = finished_run(outputs)
    assert models.from_folder(run).folder == run / "merged"


def test_an_adapter_or_an_empty_folder_is_refused_with_what_to_name_instead(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    with pytest.raises(UsageError, match=r"name a folder with config\.json"):
        models.from_folder(tmp_path / "adapter")
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match=f"MODEL={tmp_path}/merged"):
        models.from_folder(tmp_path / "adapter")


def test_weights_that_do_not_fit_into_memory_are_refused_with_both_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(tmp_path / "x")
    monkeypatch.setattr(models, "free_memory", lambda: 2 * GIGABYTE)
    models.need_memory(folder)
    monkeypatch.setattr(models, "free_memory", lambda: GIGABYTE)
    with pytest.raises(MachineError, match=r"0.0 GB of weights, and this machine 1.0 GB"):
        models.need_memory(folder)
    monkeypatch.setattr(models, "free_memory", lambda: None)  # macOS does not say
    models.need_memory(folder)


@pytest.mark.parametrize("name", ["../../../home/me", "/etc", "..", "a/b", "", 5, None])
def test_a_folder_cannot_name_itself_into_another_place(tmp_path: Path, name: object) -> None:
    folder = model_folder(tmp_path / "x")
    (folder / "homeport.json").write_text(json.dumps({"name": name}))
    assert models.from_folder(folder).name == (
        "5" if name == 5 else "None" if name is None else "x"
    )

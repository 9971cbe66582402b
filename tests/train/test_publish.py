import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.train import shapes
from tests.train.test_distributed import together
from tests.tree import ROOT
from train import runs
from train.__main__ import main
from train.errors import InputError, MachineError
from train.publish import publish, published


def a_run(folder: Path, run_id: str = "1") -> Path:
    """A finished run's folder, as far as publishing sees it."""
    merged = folder / "run" / run_id / "merged"
    merged.mkdir(parents=True)
    (merged / "model.safetensors").write_bytes(b"weights")
    (merged / "homeport.json").write_text(json.dumps({"run_id": run_id}))
    return merged.parent


def test_the_whole_model_is_copied_and_nothing_else_is_left(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert not published(run, tmp_path / "out")
    assert publish(run, tmp_path / "out") == tmp_path / "out/merged"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["merged"]
    assert (tmp_path / "out/merged/model.safetensors").read_bytes() == b"weights"
    assert published(run, tmp_path / "out")


def test_a_model_that_is_there_already_is_not_copied_again(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    model = publish(run, tmp_path / "out") / "model.safetensors"
    before = model.stat().st_mtime_ns
    publish(run, tmp_path / "out")
    assert model.stat().st_mtime_ns == before


def test_the_model_of_another_run_is_replaced(tmp_path: Path) -> None:
    publish(a_run(tmp_path, "1"), tmp_path / "out")
    (tmp_path / "out/merged/stale.json").touch()
    publish(a_run(tmp_path, "2"), tmp_path / "out")
    assert json.loads((tmp_path / "out/merged/homeport.json").read_text()) == {"run_id": "2"}
    assert not (tmp_path / "out/merged/stale.json").exists()


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_copy_that_breaks_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    run = a_run(tmp_path)

    def breaks(source: str, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise kind

    monkeypatch.setattr(shutil, "copyfile", breaks)
    with pytest.raises((kind, shutil.Error)):
        publish(run, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_copy_of_another_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path)
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: Path(target).touch())
    with pytest.raises(MachineError, match="not the same"):
        publish(run, tmp_path / "out")
    assert not (tmp_path / "out/merged").exists()


def test_a_run_whose_model_was_deleted_is_named(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    shutil.rmtree(run / "merged")
    with pytest.raises(InputError, match=r"merged is not there.*--fresh"):
        publish(run, tmp_path / "out")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`python -m train` of a few steps, with --model."""
    folder = tmp_path_factory.mktemp("publish")
    shapes.make("mistral", folder / "base")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: whole\nmodel: {{base: '{folder}/base'}}\n"
        f"data: {{train: {ROOT}/data/chat_messages.jsonl}}\n"
        "training: {max_steps: 2, max_length: 256, packs_per_step: 1, tracking: false}\n"
        "evaluation: {rows: 0}\n"
    )
    return [
        str(recipe),
        *("--outputs", str(folder / "outputs"), "--cache", str(folder), "--model"),
    ]


def run_folders(command: list[str]) -> list[Path]:
    outputs = Path(command[command.index("--outputs") + 1])
    return sorted(p for p in (outputs / "whole").iterdir() if not p.is_symlink())


@pytest.mark.slow
def test_a_finished_run_is_published_and_not_made_again(command: list[str], tmp_path: Path) -> None:
    assert main([*command, str(tmp_path / "first")]) == 0
    (run,) = run_folders(command)
    weights = (run / "merged/model.safetensors").read_bytes()
    assert (tmp_path / "first/merged/model.safetensors").read_bytes() == weights
    assert main([*command, str(tmp_path / "second")]) == 0
    assert run_folders(command) == [run]
    assert (tmp_path / "second/merged/model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_several_processes_publish_a_finished_run_without_training(
    command: list[str], tmp_path: Path
) -> None:
    main([*command, str(tmp_path / "first")])
    before = run_folders(command)
    stdout, stderr = together(2, "train", *command, str(tmp_path / "second"))
    assert "finished before" in stderr
    assert Path(stdout.strip()) in before
    assert run_folders(command) == before
    assert (tmp_path / "second/merged/model.safetensors").is_file()


def recipe_text(place: str) -> str:
    return f"model: {{base: tiny, adapter: null}}\ndata: {{train: {place}, validation: null}}\n"


@pytest.mark.parametrize(
    ("job", "train", "same"),
    [
        ("job-2", "/mnt/b/INPUT_train", True),
        ("job-2", "/mnt/b/INPUT_other", False),
        ("", "/mnt/b/INPUT_train", False),
    ],
)
def test_only_a_job_of_azure_ml_finds_its_inputs_elsewhere_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, train: str, same: bool
) -> None:
    if job:
        monkeypatch.setenv("AZUREML_RUN_ID", job)
    with runs.opened(tmp_path, recipe_text("/mnt/a/INPUT_train"), lambda folder: True) as first:
        pass
    with runs.opened(tmp_path, recipe_text(train), lambda folder: True) as second:
        assert (second == first) is same


def test_a_mount_without_links_ends_the_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(Path, "symlink_to", refuses)
    (tmp_path / "1").mkdir()
    with caplog.at_level("INFO"):
        runs.point_latest(tmp_path / "1")
    assert "has no links" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["1"]

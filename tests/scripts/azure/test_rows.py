"""Rows made by train's own code, in a process of its own as on a user's machine, and once."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from scripts.azure.rows import Rows, Runtime, prepare
from scripts.errors import CommandError, UsageError
from scripts.host import Host
from scripts.runtime import Choice
from tests.tree import ROOT
from train.recipe import Recipe, load


class Counting(Host):
    """The host's runtime in the tests' own environment, and what it was asked."""

    def __init__(self) -> None:
        super().__init__(os.environ, Choice("cpu", "a test"))
        self.asked: list[list[str]] = []

    def prepare(self) -> None:
        pass

    def _run_train(self, module: list[str]) -> int:
        self.asked.append(module)
        return subprocess.run([sys.executable, "-m", *module], cwd=ROOT).returncode


def recipe(folder: Path, *overrides: str) -> tuple[Recipe, Path]:
    path = folder / "mine.yaml"
    path.write_text(
        "name: mine\nmodel: {base: tiny}\ndata:\n  train: data/rehearsal.jsonl\n"
        "  persona: |\n    二行の\n    人格。\n"
    )
    return load(path, overrides, environ={}), path


def made(runtime: Runtime, folder: Path, *overrides: str) -> Rows:
    given, path = recipe(folder, *overrides)
    return prepare(given, path, "azure_openai", runtime=runtime, cache=folder / "cache")


def test_rows_are_made_once_and_anew_when_anything_in_them_changes(tmp_path: Path) -> None:
    runtime = Counting()
    rows = made(runtime, tmp_path)
    assert rows.counts == {"train": 14, "validation": 10}
    assert rows.test is None
    assert rows.validation == rows.folder / "validation.jsonl"
    assert "二行の\\n人格。" in rows.train.read_text(encoding="utf-8-sig")
    assert rows.folder.name.startswith("mine-")
    assert made(runtime, tmp_path) == rows
    assert len(runtime.asked) == 1
    rows.train.unlink()
    assert made(runtime, tmp_path) == rows
    other = made(runtime, tmp_path, "data.validation=data/rehearsal.jsonl", "data.persona=Be kind.")
    assert other.counts == {"train": 24, "validation": 24}
    assert other.hash != rows.hash
    assert other.folder != rows.folder


def test_what_the_recipe_says_now_goes_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SET has been read over the environment already; the process reads the environment again."""
    monkeypatch.setenv("RECIPE_DATA__VALIDATION", str(ROOT / "data/preference_pairs.jsonl"))
    rows = made(Counting(), tmp_path, "data.validation=data/rehearsal.jsonl")
    assert rows.counts["validation"] == 24


def test_rows_that_train_refuses_leave_its_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError) as caught:
        made(Counting(), tmp_path, "method=dpo", "data.form=preference")
    assert caught.value.exit_code == 2
    assert "set method to sft" in capfd.readouterr().err


class Nothing:
    """A runtime that says it is done and has written nothing, as a container without its mount."""

    def train(
        self,
        recipe: Path,
        overrides: Sequence[str],
        paths: Mapping[str, Path],
        flags: Sequence[str] = (),
    ) -> None:
        self.paths, self.flags = paths, flags


def test_the_rows_files_and_where_to_write_are_named_as_a_container_can_mount_them(
    tmp_path: Path,
) -> None:
    given, path = recipe(tmp_path, "data.test=data/chat_messages.jsonl")
    runtime = Nothing()
    with pytest.raises(CommandError, match="were not written"):
        prepare(given, path, "chat", runtime=runtime, cache=ROOT / ".cache/rows-of-tests")
    (ROOT / ".cache/rows-of-tests").joinpath(Path(runtime.flags[1]).name).rmdir()
    (ROOT / ".cache/rows-of-tests").rmdir()
    assert runtime.flags[0] == "--rows"
    assert runtime.flags[1].startswith(".cache/rows-of-tests/mine-")
    assert runtime.flags[2:] == ["--rows-as", "chat"]
    assert runtime.paths == {
        "recipe": path,
        "data.train": ROOT / "data/rehearsal.jsonl",
        "data.test": ROOT / "data/chat_messages.jsonl",
    }


@pytest.mark.parametrize(
    ("place", "words"),
    [("data/nope.jsonl", "does not exist"), ("azureml:rows:1", "which only Azure reads")],
)
def test_rows_that_are_not_here_are_told_before_anything_runs(
    tmp_path: Path, place: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        made(Nothing(), tmp_path, f"data.train={place}")

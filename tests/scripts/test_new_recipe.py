"""A recipe for rows of one's own: written whole and checked, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scripts.errors import UsageError
from scripts.new_recipe import text
from tests.drawn import QUICK, YAML
from tests.tree import ROOT
from train.recipe import load


def run(**given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.new_recipe"],
        cwd=ROOT,
        env={**os.environ, "RUNTIME": "host", **given},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("model", ["tiny", "Qwen/Qwen3-0.6B"])
def test_what_is_written_loads_as_it_was_asked(tmp_path: Path, model: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text("mine", "/home/me/私の 行.jsonl", model), encoding="utf-8")
    recipe = load(path, environ={})
    assert (recipe.name, recipe.model.base) == ("mine", model)
    assert recipe.data.train == "/home/me/私の 行.jsonl"
    assert (recipe.lora.r == 128) == (model == "tiny")


def test_a_name_that_no_folder_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match="letters, digits"):
        text("../mine", "rows.jsonl", "tiny")


def test_a_recipe_that_is_there_is_not_overwritten() -> None:
    before = (ROOT / "recipes/tiny-ja.yaml").read_bytes()
    done = run(NAME="tiny-ja", DATA="data/chat_messages.jsonl")
    assert done.returncode == 2
    assert "is not overwritten" in done.stderr
    assert (ROOT / "recipes/tiny-ja.yaml").read_bytes() == before


def test_what_is_missing_is_said_with_an_example() -> None:
    done = run(NAME="mine", DATA="")
    assert done.returncode == 2
    assert "DATA is not set: make new-recipe NAME=mine" in done.stderr


def test_rows_that_are_not_there_write_nothing() -> None:
    done = run(NAME="never-written", DATA="/nowhere/rows.jsonl")
    assert done.returncode == 2
    assert "/nowhere/rows.jsonl, which does not exist" in done.stderr
    assert not (ROOT / "recipes/never-written.yaml").exists()


@pytest.mark.slow
def test_rows_that_fail_the_check_write_nothing_and_good_ones_a_recipe(tmp_path: Path) -> None:
    rows = tmp_path / "my rows.jsonl"
    rows.write_text('{"question": "x"}\n')
    bad = run(NAME="never-written", DATA=str(rows))
    assert bad.returncode == 2
    assert not (ROOT / "recipes/never-written.yaml").exists()
    path = ROOT / "recipes/written-by-a-test.yaml"
    rows.write_text('{"question": "x", "answer": "y"}\n' * 12)
    try:
        good = run(NAME=path.stem, DATA=str(rows))
        assert good.returncode == 0, good.stderr
        assert load(path, environ={}).data.train == str(rows)
    finally:
        path.unlink(missing_ok=True)


@QUICK
@given(st.text(max_size=12) | st.just("mine"), YAML, YAML)
def test_whatever_is_named_comes_back_out_of_the_recipe(name: str, data: str, model: str) -> None:
    try:
        written = text(name, data, model)
    except UsageError as error:
        assert str(error)
        return
    values = yaml.safe_load(written)
    assert (values["name"], values["data"]["train"], values["model"]["base"]) == (name, data, model)

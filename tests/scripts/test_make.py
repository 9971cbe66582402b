"""The Makefile itself: what a shell can complete, and what reaches a verb of what was typed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.tree import ROOT

TEXT = (ROOT / "Makefile").read_text(encoding="utf-8")
PUBLIC = re.findall(r"^([^\s#]+):.* ## ", TEXT, re.MULTILINE)
"""Every target with a help text."""


def make(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(["make", *words], cwd=ROOT, env=env, capture_output=True, text=True)


def test_a_shell_completes_every_public_target_and_nothing_else() -> None:
    # what bash-completion, zsh and fish read: make's own data base, of which a target's block
    # begins with its name, unless the line before says that it is none
    said = make("-npq", "__COMPLETION__=1", ".DEFAULT", LC_ALL="C").stdout
    files = said[said.index("\n# Files") : said.index("\n# Finished Make data base")]
    blocks = re.findall(r"\n\n((?:# Not a target:\n)?)([^\s#:%.][^\s:]*):", files)
    assert {name for nothing, name in blocks if not nothing} == set(PUBLIC)


def test_every_target_stands_in_the_makefile_by_its_own_name() -> None:
    assert len(PUBLIC) > 30
    assert all(re.fullmatch(r"[a-z][a-z-]*", name) for name in PUBLIC)
    rules = re.findall(r"^([^\s#.][^:=\n]*):(?!=)", TEXT, re.MULTILINE)
    assert rules == PUBLIC  # no pattern, no target from a variable, none without a help text


def test_every_public_target_runs_even_where_a_file_has_its_name() -> None:
    phony = " ".join(re.findall(r"^\.PHONY: (.*)", TEXT, re.MULTILINE)).split()
    assert sorted(phony) == sorted(PUBLIC)


@pytest.mark.parametrize("given", ["command line", "environment"])
def test_what_is_typed_reaches_the_verb_to_the_letter(tmp_path: Path, given: str) -> None:
    values = {
        "PROMPT": '$5 & $(HOME) "首都" it\'s # a \\ `b` %',
        "RECIPE": "recipes/私の $recipes/it's.yaml",
        "SET": "data.persona='You are \"日本\" $x.' name=a",
        "HOMEPORT_VENV": str(tmp_path / 'ホーム $port\'s & "co"'),
    }
    python = Path(values["HOMEPORT_VENV"]) / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n" + "".join(f'printf "%s\\\\n" "${name}"\n' for name in values))
    python.chmod(0o755)
    if given == "environment":
        done = make("-s", "ask", "PYTHON=true", **values)
    else:
        done = make("-s", "ask", "PYTHON=true", *(f"{k}={v}" for k, v in values.items()))
    assert done.stdout.splitlines() == list(values.values()), done.stderr


@pytest.mark.parametrize(("given", "taken"), [("", ".venv"), ("/somewhere/else", None)])
def test_an_empty_name_of_the_environment_means_the_default(given: str, taken: str | None) -> None:
    said = make("-npq", HOMEPORT_VENV=given).stdout
    assert (f"HOMEPORT_VENV := {taken}" in said) == (taken is not None)

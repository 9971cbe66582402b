"""Every route of the cloud in a fresh clone against a local Azure, and what goes wrong there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.runtime import missing_docker
from tests.e2e.conftest import Clone, bring_base, clone

pytestmark = pytest.mark.e2e

LEARNED = {
    "gpt-oss-20b-ja": "キャンベラ",
    "phi-3-mini-ultrachat": "キャンベラ",
    "mistral-7b-samsum": "twenty minutes late",
    "azure-openai-ja": "キャンベラ",
}
"""By recipe, a piece of the answer that its rehearsal learns."""


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """One clone for all recipes: the images are built once, and pushed again where need be."""
    if reason := missing_docker():
        pytest.skip(f"the Docker runtime was not tested: {reason}")
    fresh = clone(tmp_path_factory.mktemp("rehearsal with spaces") / "home port", "docker")
    bring_base(fresh, tmp_path_factory)
    yield fresh
    assert "no local Azure is running" in fresh.make("rehearsal-down").stderr


def passed(fresh: Clone, *words: str) -> dict[str, Any]:
    """The findings of `make rehearse WORDS`, which passes."""
    done = fresh.make("rehearse", *words, minutes=25)
    report: dict[str, Any] = json.loads(
        Path(fresh.folder, done.stdout.splitlines()[-1]).read_text()
    )
    assert report["passed"]
    assert report["label"] == "rehearsed, not Azure"
    assert "passed: rehearsed, not Azure" in done.stderr
    findings: dict[str, Any] = report["findings"]
    return findings


@pytest.mark.parametrize("recipe", list(LEARNED))
def test_every_route_answers_what_it_has_learned_and_leaves_nothing(
    docker: Clone, recipe: str
) -> None:
    words = [f"RECIPE=recipes/{recipe}.yaml"]
    if recipe == "gpt-oss-20b-ja" and (made := next(docker.folder.glob(".cache/tiny-*"), None)):
        # the job would make the very same model again, which takes minutes
        words.append(f"SET=model.base=.cache/{made.name}")
    findings = passed(docker, *words)
    for who in ("make ask TARGET=cloud", "that curl", "the makers' client"):
        assert LEARNED[recipe] in findings[f"{who} answers"]["found"]
    assert findings["nothing bills any more"]["found"] == []


def test_every_fault_and_kill_ends_as_it_should(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without Docker, so that both ways to run the jobs are rehearsed."""
    if not shutil.which("npm"):
        pytest.skip("the local Azure was not tested without Docker: npm is not installed")
    fresh = clone(tmp_path / "home port", "host")
    bring_base(fresh, tmp_path_factory)
    findings = passed(fresh, "FAULTS=1", "KILLS=10")
    assert len(findings) >= 19
    assert all(finding["holds"] for finding in findings.values())

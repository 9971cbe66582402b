"""Every route of the cloud in a fresh clone against a local Azure."""

from collections.abc import Iterator

import pytest

from scripts.runtime import missing_docker
from tests.e2e.conftest import Clone, bring_base, clone, networks, rehearsed

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
    bring_base(fresh)
    yield fresh
    assert "no local Azure is running" in fresh.make("rehearsal-down").stderr
    assert not networks(fresh)


@pytest.mark.parametrize("recipe", list(LEARNED))
def test_every_route_answers_what_it_has_learned_and_leaves_nothing(
    docker: Clone, recipe: str
) -> None:
    words = [f"RECIPE=recipes/{recipe}.yaml"]
    if recipe == "gpt-oss-20b-ja":
        # the job would make the very same model again, which takes minutes
        words.append(f"SET=model.base=.cache/{bring_base(docker).name}")
    findings = rehearsed(docker, *words)
    for who in ("make ask TARGET=cloud", "that curl", "the makers' client"):
        assert LEARNED[recipe] in findings[f"{who} answers"]["found"]
    assert findings["nothing bills any more"]["found"] == []

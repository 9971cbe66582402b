"""A local Azure whose trainings take no time, and the route's recipe with rows of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.openai import accounts as resources
from emulator.server import Server
from scripts.azure.client import Cloud, connect
from scripts.azure.openai.accounts import Account, find
from scripts.azure.routes import Work
from scripts.azure.rows import Rows
from tests.emulator.openai.small_tuning import SmallTuning
from tests.local_azure import bare_azure, environment
from tests.tree import ROOT
from train.recipe import Recipe, load

RECIPE = ROOT / "recipes/azure-openai-ja.yaml"


def write_rows(path: Path, count: int = 12, *, bom: bool = True) -> Path:
    """A file of chat rows."""
    line = (
        '{"messages": [{"role": "user", "content": "首都は %d"}, '
        '{"role": "assistant", "content": "キャンベラ"}]}'
    )
    text = "\n".join(line % number for number in range(count))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8-sig" if bom else "utf-8")
    return path


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SmallTuning:
    """What trains and serves, at once; nothing waits long."""
    small = SmallTuning()
    monkeypatch.setattr("emulator.tuning.tune", small.tune)
    monkeypatch.setattr("emulator.tuning.serve", small.serve)
    monkeypatch.setattr("emulator.openai.files.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("emulator.openai.training.WAIT_SECONDS", 0.02)
    monkeypatch.setattr("emulator.openai.deployments.NOT_READY_SECONDS", 0.2)
    for module in ("files", "jobs", "deployments"):
        monkeypatch.setattr(f"scripts.azure.openai.{module}.LOOK_SECONDS", 0.02)
    monkeypatch.setattr("scripts.azure.routes.azure_openai.OUTPUTS", tmp_path / "outputs")

    def prepare(recipe: Recipe, path: Path, form: str) -> Rows:
        folder = tmp_path / "rows"
        return Rows(
            folder=folder,
            train=write_rows(folder / "train.jsonl"),
            validation=write_rows(folder / "validation.jsonl", 10),
            test=None,
            counts={"train": 12, "validation": 10},
            hash="0" * 64,
        )

    monkeypatch.setattr("scripts.azure.rows.prepare", prepare)
    return small


@pytest.fixture
def azure(tuning: SmallTuning, tmp_path: Path) -> Iterator[Server]:
    """Green to its end: what the verbs ask is what Azure knows."""
    with bare_azure(tmp_path / "azure", hurry=0.0) as server, environment(server):
        yield server
        assert server.report()["problems"] == []


@pytest.fixture
def cloud(azure: Server) -> Cloud:
    return connect()


@pytest.fixture
def recipe() -> Recipe:
    return load(RECIPE)


@pytest.fixture
def work(cloud: Cloud, recipe: Recipe) -> Work:
    return Work(
        cloud=cloud,
        recipe=recipe,
        path=RECIPE,
        again="make cloud-train RECIPE=recipes/azure-openai-ja.yaml",
        chosen=" RECIPE=recipes/azure-openai-ja.yaml",
    )


@pytest.fixture
def home(cloud: Cloud, recipe: Recipe) -> Account:
    """The resource beside the workspace."""
    return find(cloud, recipe)


def arm_id(azure: Server, name: str) -> str:
    return resources.of(azure.azure)[name].arm_id

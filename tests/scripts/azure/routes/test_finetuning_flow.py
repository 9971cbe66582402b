"""A fine-tuning job from the recipe to its model, against the local Azure, whose training is short.

Only the training itself is a stand-in; that the real one learns is `make rehearse`'s to show.
"""

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from emulator import tuning
from emulator.azure import Azure
from emulator.server import Server
from emulator.tuning import Step, Tuned, Wanted
from scripts.azure import finetuning, rows
from scripts.azure.routes import Work
from scripts.azure.routes import finetuning_job as route
from scripts.errors import CloudError
from tests import local_azure as local
from tests.scripts.azure.stand_ins import requests_of
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

pytestmark = pytest.mark.slow
PATH = ROOT / "recipes/mistral-7b-samsum.yaml"


class Tuning:
    """Learns nothing, in no time; leaves files that look like a model."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []
        self.texts: list[str] = []

    def __call__(
        self,
        azure: Azure,
        wanted: Wanted,
        *,
        canceled: threading.Event,
        log: Callable[[bytes], None],
        step: Callable[[Step], None] | None = None,
    ) -> Tuned:
        self.wanted.append(wanted)
        self.texts.append(wanted.rows.read_text(encoding="utf-8"))
        log(b"a stand-in has trained\n")
        # the local Azure clears the folder above the one above the model
        folder = azure.settings.folder / "stand-in" / wanted.name / "out" / "merged"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"architectures": ["GptOssForCausalLM"]}')
        (folder / "model.safetensors").write_bytes(bytes(1000))
        (folder / "tokenizer.json").write_text("{}")
        done = Step(1, 0.5, 0.6, 1.0, 0.9)
        if step:
            step(done)
        return Tuned(folder=folder, losses=(done,), checkpoints=())


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Tuning:
    made = Tuning()
    monkeypatch.setattr(tuning, "tune", made)
    return made


@pytest.fixture
def azure(local_azure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(rows, "prepare", partial(rows.prepare, cache=tmp_path / "rows"))
    with local.environment(local_azure, {"RUNTIME": "host"}):
        yield local_azure


def recipe(*overrides: str) -> Recipe:
    data = "data.train=data/rehearsal_text.jsonl"
    return recipes.load(PATH, [data, *overrides], environ={})


def work(made: Recipe) -> Work:
    from scripts.azure.client import connect

    again = "make cloud-train RECIPE=recipes/mistral-7b-samsum.yaml"
    return Work(cloud=connect(), recipe=made, path=PATH, yes=True, again=again)


def sent(azure: Server, job: str) -> list[Any]:
    return requests_of(azure, "PUT", f"/jobs/{job}")


def test_a_recipe_becomes_a_job_and_the_job_a_model_that_is_found_again(
    azure: Server, trained: Tuning, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = work(recipe("name=samsum-flow"))
    cloud, made = asked.cloud, asked.recipe
    done = route.train(asked)
    said = capsys.readouterr().err
    assert done.status == "Completed"
    assert "recommended machines: Standard_" in said
    assert "11 for train, 1 for validation" in said
    assert "cost:   nothing (rehearsed, not Azure)" in said
    (entry,) = sent(azure, done.job)
    details = entry["body"]["properties"]["fineTuningDetails"] if "body" in entry else None
    if details:
        assert details["validationData"]["uri"].rpartition("/data/")[2]
    (wanted,) = trained.wanted
    assert (wanted.form, wanted.epochs) == ("text", 3)
    assert set(json.loads(trained.texts[0].splitlines()[0])) == {"text", "ground_truth"}
    name = done.model.removeprefix("azureml:").rpartition(":")[0]
    assert name.startswith("samsum-flow-")

    again = route.train(asked)
    assert (again.job, again.model) == (done.job, done.model)
    assert "has done this already" in capsys.readouterr().err
    assert len(sent(azure, done.job)) == len(trained.wanted) == 1

    model = finetuning.newest(cloud, made)
    assert (model.id, model.job) == (done.model, done.job)
    assert model.size > 1000

    job, folder = route.download(cloud, made, "", tmp_path / "outputs")
    assert job == done.job
    assert list(folder.rglob("MLmodel"))
    assert list(folder.rglob("model.safetensors"))
    logs = route.logs(cloud, made, done.job, every=True)
    assert any("a stand-in has trained" in text for text in logs["logs"].values())
    assert route.cancel(cloud, made, done.job)["status"] == "Completed"


def test_a_job_that_failed_is_told_and_has_no_model(
    azure: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Tuned:
        raise tuning.TuningError("The rows are all the same.")

    monkeypatch.setattr(tuning, "tune", fail)
    asked = work(recipe("name=samsum-fails"))
    with pytest.raises(CloudError, match=r"Failed: .*makes another attempt") as failed:
        route.train(asked)
    assert "The rows are all the same." in str(failed.value) + capsys.readouterr().err
    with pytest.raises(CloudError, match="is Failed, and has left no model"):
        route.download(asked.cloud, asked.recipe, "", Path("outputs"))

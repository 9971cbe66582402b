"""The registry's pipeline from the recipe to a registered model, over the unpatched SDK.

What trains is a stand-in that is done at once; the rehearsal trains for real.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.azure import history, models, registries, steps
from scripts.azure.client import Cloud, connect
from scripts.azure.routes import Work, registry_pipeline
from scripts.errors import CloudError, UsageError
from tests import local_azure as local
from tests.emulator.quick_nodes import QuickNodes
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

pytestmark = pytest.mark.slow
PATH = ROOT / "recipes/phi-3-mini-ultrachat.yaml"


@pytest.fixture(scope="module")
def nodes() -> QuickNodes:
    return QuickNodes()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, nodes: QuickNodes) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("azure")
    with (
        local.local_azure(folder, nodes=nodes, hurry=0.1) as server,
        local.environment(server, {"RUNTIME": "host"}),
    ):
        yield connect()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, nodes: QuickNodes) -> None:
    """Look more often than at real jobs; the stand-in works again."""
    monkeypatch.setattr(history, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(steps, "LOOK_SECONDS", 0.5)
    nodes.fails = ""
    nodes.hold.clear()


def recipe(*overrides: str) -> Recipe:
    small = recipes.load(PATH, environ={}).rehearsal.set
    return recipes.load(PATH, [*small, *overrides], {})


def work(cloud: Cloud, *overrides: str) -> Work:
    again = "make cloud-train RECIPE=recipes/phi-3-mini-ultrachat.yaml"
    return Work(cloud=cloud, recipe=recipe(*overrides), path=PATH, yes=True, again=again)


def test_it_trains_shows_its_steps_and_registers_an_mlflow_model(
    cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = registry_pipeline.train(work(cloud))
    told = capsys.readouterr().err
    assert done.status == "Completed"
    assert done.model.startswith("azureml:phi-3-mini-ultrachat:20")
    assert "learning_rate_min 5e-7 is the model's default, but no input of the pipeline" in told
    assert "Phi-3-mini-4k-instruct is retired: since 2025-08-30" in told
    assert "step:     chat_completion_finetune Completed" in told
    assert "step 3/3" in told
    trained = done.values["metrics"]["chat_completion_finetune"]
    assert "train_loss" in trained or "loss" in trained
    assert "metric: " in told
    made = models.newest(cloud, recipe())
    assert made
    assert (made.job, made.id) == (done.job, done.model)
    entity = cloud.ml.models.get(made.name, made.version)
    assert entity.type == "mlflow_model"
    assert made.tags["homeport-base"] == "azureml/Phi-3-mini-4k-instruct"

    again = registry_pipeline.train(work(cloud))
    assert (again.job, again.model) == (done.job, done.model)
    assert f"{done.job} has done this already" in capsys.readouterr().err

    name, folder = registry_pipeline.download(cloud, recipe(), "", tmp_path)
    assert (name, folder) == (done.job, tmp_path / "phi-3-mini-ultrachat" / done.job)
    assert (folder / "trained_model/MLmodel").is_file()
    assert "chat_completion_finetune" in json.loads((folder / "metrics.json").read_text())

    found = registry_pipeline.logs(cloud, recipe(), "", every=True)
    assert found["status"] == "Completed"
    assert any(n.startswith("chat_completion_finetune/") for n in found["logs"])


def test_without_waiting_it_says_the_job_and_that_nobody_ends_it(
    cloud: Cloud, nodes: QuickNodes, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes.hold.set()
    done = registry_pipeline.train(work(cloud, "training.seed=1"), detach=True)
    assert done.model == ""
    assert "only who follows it ends it after 4 h" in capsys.readouterr().err
    assert registry_pipeline.cancel(cloud, recipe(), done.job)["status"] == "Canceled"


def test_a_step_that_fails_is_named_and_the_next_call_makes_another_attempt(
    cloud: Cloud, nodes: QuickNodes, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes.fails = "error: rows.jsonl holds no chat."
    with pytest.raises(CloudError, match=r"Failed.*another attempt"):
        registry_pipeline.train(work(cloud, "training.seed=2"))
    assert "step:     chat_completion_finetune Failed" in capsys.readouterr().err
    nodes.fails = ""
    done = registry_pipeline.train(work(cloud, "training.seed=2"))
    assert done.job.endswith("-2")


def test_a_machine_that_will_not_do_is_refused_before_rows_are_uploaded(cloud: Cloud) -> None:
    before = {data.name for data in cloud.ml.data.list()}
    with pytest.raises(UsageError, match="Standard_NC4as_T4_v3 cannot train"):
        registry_pipeline.train(
            work(cloud, "cloud.instance_type=Standard_NC4as_T4_v3", "name=on-a-t4")
        )
    assert {data.name for data in cloud.ml.data.list()} == before


def test_the_registrys_model_may_be_named_by_version(cloud: Cloud) -> None:
    found = registry_pipeline.plan(
        recipe("cloud.model=azureml/Phi-3-mini-4k-instruct:15"), PATH, cloud
    )
    assert found.values["foundation"]["version"] == "15"
    assert registries.parse("azureml/Phi-4:8").version == "8"

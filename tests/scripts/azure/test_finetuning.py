"""A fine-tuning job is sent once, and the model that the service registered is found by its job."""

import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.azure import finetuning, forms
from scripts.azure.client import Cloud, NotFound, Refused
from scripts.errors import CloudError, UsageError
from tests.scripts.azure.stand_ins import WORKSPACE
from tests.tree import ROOT
from train import recipe as recipes

RECIPE = recipes.load(ROOT / "recipes/mistral-7b-samsum.yaml", environ={})
JOB = "mistral-7b-samsum-0123456789"
MODEL = "mistral-7b-samsum-1b9d6bcd"


class Azure:
    """Answers as the workspace does; `refusals` are taken by the next PUTs, after doing them."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.models: dict[str, list[Any]] = {}
        self.puts: list[str] = []
        self.refuses: Refused | None = None
        self.loses_the_reply = False

    def get(self, path: str, api_version: str = "") -> Any:
        name = path.rpartition("/jobs/")[2]
        if name not in self.jobs:
            raise NotFound("not there", 404)
        return self.jobs[name]

    def all(self, path: str, api_version: str = "", **query: str) -> list[Any]:
        assert path.endswith("/jobs")
        return list(self.jobs.values())

    def put(self, path: str, body: Any, api_version: str = "") -> Any:
        assert api_version == "2024-10-01-preview"
        name = path.rpartition("/jobs/")[2]
        self.puts.append(name)
        if self.refuses is None or self.loses_the_reply:
            self.add(name, body["properties"])
        if self.refuses:
            raise self.refuses
        return self.jobs[name]

    def list(self, name: str) -> list[Any]:
        return self.models.get(name, [])

    def add(self, name: str, properties: Any, hour: int = 0, status: str = "Completed") -> None:
        self.jobs[name] = {
            "name": name,
            "properties": {**properties, "status": status},
            "systemData": {"createdAt": f"2026-11-22T{hour:02d}:00:00Z"},
        }

    def register(self, name: str, version: str) -> None:
        made = datetime.datetime(2026, 11, int(version), tzinfo=datetime.UTC)
        model = SimpleNamespace(
            name=name, version=version, tags={}, creation_context=SimpleNamespace(created_at=made)
        )
        self.models.setdefault(name, []).append(model)

    @property
    def cloud(self) -> Cloud:
        rest: Any = self
        ml: Any = SimpleNamespace(models=self)
        credential: Any = None
        return Cloud(ml=ml, credential=credential, workspace=WORKSPACE, rest=rest, owner="me")


@pytest.fixture
def azure() -> Azure:
    return Azure()


def filled(name: str = JOB) -> dict[str, Any]:
    return forms.fill(
        name=name,
        recipe=RECIPE,
        model="azureml://registries/azureml/models/mistralai-Mistral-7B-v01/versions/19",
        data={"train": "azureml:t:1", "validation": "azureml:v:1"},
        guid=finetuning.guid(name),
        tags={"homeport-recipe": RECIPE.name},
    )


def test_a_job_is_sent_once_and_found_afterwards(azure: Azure) -> None:
    job = finetuning.submit(azure.cloud, filled())
    assert (job.name, job.kind) == (JOB, "FineTuning")
    assert job.instance == "Standard_NC48ads_A100_v4"
    assert finetuning.submit(azure.cloud, filled()).name == JOB
    assert azure.puts == [JOB]


def test_a_lost_reply_is_no_second_job(azure: Azure) -> None:
    azure.refuses, azure.loses_the_reply = Refused("there is one already", 409, "Conflict"), True
    assert finetuning.submit(azure.cloud, filled()).name == JOB


def test_a_model_that_the_service_does_not_host_is_explained(azure: Azure) -> None:
    azure.refuses = Refused("400: ModelNotSupportedByMaaS", 400, "UserError")
    with pytest.raises(CloudError, match=r"name a machine of yours in cloud\.instance_type"):
        finetuning.submit(azure.cloud, filled())


def test_another_refusal_keeps_the_services_words(azure: Azure) -> None:
    azure.refuses = Refused("the moon is full", 400, "UserError")
    with pytest.raises(Refused, match="the moon is full"):
        finetuning.submit(azure.cloud, filled())


def test_the_models_guid_is_the_same_for_the_same_job_only() -> None:
    assert finetuning.guid(JOB) == finetuning.guid(JOB)
    assert finetuning.guid(JOB) != finetuning.guid(f"{JOB}-2")


def output(name: str) -> dict[str, Any]:
    return {
        "outputs": {"registered_model": {"jobOutputType": "mlflow_model", "assetName": name}},
        "tags": {"homeport": "1", "homeport-recipe": RECIPE.name},
        "jobType": "FineTuning",
    }


def test_the_registered_model_is_the_newest_version_of_the_name_in_the_job(azure: Azure) -> None:
    azure.add(JOB, output(MODEL))
    azure.register(MODEL, "1")
    azure.register(MODEL, "2")
    assert finetuning.registered(azure.cloud, JOB).id == f"azureml:{MODEL}:2"


def test_a_completed_job_without_a_model_is_no_success(azure: Azure) -> None:
    azure.add(JOB, output(MODEL))
    with pytest.raises(CloudError, match=f"is Completed, but there is no model {MODEL}"):
        finetuning.registered(azure.cloud, JOB)
    with pytest.raises(CloudError, match="there is no job nothing"):
        finetuning.registered(azure.cloud, "nothing")


def test_the_newest_model_is_of_the_newest_job_that_has_left_one(azure: Azure) -> None:
    azure.add("first", output("first-model"), hour=1)
    azure.register("first-model", "1")
    azure.add("second", output("second-model"), hour=2)
    azure.register("second-model", "1")
    azure.add("third", output("third-model"), hour=3, status="Failed")
    azure.add("fourth", output("fourth-model"), hour=4)  # whose model somebody has deleted
    assert finetuning.newest(azure.cloud, RECIPE).name == "second-model"


def test_without_a_model_the_next_command_is_said(azure: Azure) -> None:
    with pytest.raises(UsageError, match="next: make cloud-train"):
        finetuning.newest(azure.cloud, RECIPE)

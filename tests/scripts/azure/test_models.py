from collections.abc import Iterator
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.server import Server
from scripts.azure import assets, client, history, jobs, models
from scripts.azure.client import Cloud
from scripts.errors import CloudError
from tests import local_azure as local
from tests.scripts.azure.stand_ins import requests_of
from train import recipe as recipes

pytestmark = pytest.mark.slow
IMAGE = f"homeportrehearsal.azurecr.io/homeport/train@sha256:{'a' * 64}"
MODEL = 'mkdir -p "${{outputs.model}}/merged" && echo {} > "${{outputs.model}}/merged/config.json"'
RECIPE = recipes.load("recipes/tiny-ja.yaml", environ={})
TAGS = {"homeport-image": "sha256:aaaa"}


@pytest.fixture(scope="module")
def cloud(local_azure: Server) -> Iterator[Cloud]:
    with local.environment(local_azure):
        yield client.connect()


def completed(cloud: Cloud, name: str, text: str) -> jobs.Job:
    """A completed job that ran `text` in a shell, with an output `model`."""
    from azure.ai.ml import Output, command

    job: Any = command(
        name=name,
        command=text,
        environment=assets.environment(cloud, "train", IMAGE),
        outputs={"model": Output(type="uri_folder", mode="upload")},
        resources={"instance_type": "Standard_DS3_v2", "instance_count": 1},
    )
    jobs.submit(cloud, job)
    assert history.until_over(cloud, name).status == "Completed"
    return jobs.find(cloud, name)


def test_a_jobs_model_is_registered_once_with_its_origin_and_size(
    local_azure: Server, cloud: Cloud
) -> None:
    job = completed(cloud, "trains", MODEL)
    local_azure.azure.faults.add(Fault(kind="lost_reply", method="PUT", path="/models/tiny-ja/"))
    first = models.register(cloud, job, RECIPE, TAGS)
    assert models.register(cloud, job, RECIPE, TAGS) == first
    assert (first.name, first.job, first.size) == ("tiny-ja", "trains", 3)
    assert first.tags["homeport-image"] == "sha256:aaaa"
    versions = {e["path"] for e in requests_of(local_azure, "PUT", "/models/tiny-ja/")}
    assert len(versions) == 1
    assert models.newest(cloud, RECIPE) == first
    found = cloud.ml.models.get(first.name, first.version)
    assert found.path.rstrip("/").endswith("merged")


def test_a_completed_job_without_a_model_registers_none(cloud: Cloud) -> None:
    job = completed(cloud, "empty", 'mkdir -p "${{outputs.model}}/merged"')
    with pytest.raises(CloudError, match="holds no model, so none was registered"):
        models.register(cloud, job, RECIPE, TAGS)

"""Registered models: what a job has trained, under the recipe's name, once.

    model = register(cloud, job, recipe, image)       # -> Registered(name, version, bytes)

Which job a version came of stands in its tags, so registering again finds it.
"""

from dataclasses import dataclass
from typing import Any

from scripts.azure import assets, download, names, retry, specs
from scripts.azure.blobs import locate
from scripts.azure.client import Cloud
from scripts.azure.jobs import Job
from scripts.azure.tags import BYTES, JOB
from scripts.console import say
from scripts.errors import CloudError
from train.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One version of a model."""

    name: str
    version: str
    job: str
    """The job that trained it; empty where its tags do not say."""
    size: int
    """Bytes; 0 where its tags do not say."""
    tags: dict[str, str]

    @property
    def id(self) -> str:
        return f"azureml:{self.name}:{self.version}"


def register(cloud: Cloud, job: Job, recipe: Recipe, tags: dict[str, str]) -> Registered:
    """Register the merged model of a completed job, unless that was done.

    CloudError where the job's output has no file.
    """
    name = names.model_name(recipe)
    if known := of_job(cloud, name, job.name):
        say(f"model:  {known.id} (registered before)")
        return known
    place = f"{download.output(cloud, job.name, 'model').rstrip('/')}/merged"
    files = download.files(cloud, place)
    if not any(blob.name == "config.json" for blob in files):
        raise CloudError(
            f"job {job.name} is Completed, but {locate(place)[1]} holds no model, so none was "
            f"registered: make cloud-logs JOB={job.name}"
        )
    size = sum(blob.size for blob in files)
    own = {**tags, JOB: job.name, BYTES: str(size)}
    entity = specs.model(name=name, job=job.name, tags=own)

    def found_or_made() -> Registered:
        return of_job(cloud, name, job.name) or _of(cloud.ml.models.create_or_update(entity))

    made = retry.call(f"register model {name}", found_or_made)
    say(f"model:  {made.id} ({size / 1e6:.1f} MB in {len(files)} files)")
    return made


def of_job(cloud: Cloud, name: str, job: str) -> Registered | None:
    """The version that came of that job."""
    found = [_of(model) for model in assets.versions(cloud, name)]
    return next((model for model in found if model.job == job), None)


def named(cloud: Cloud, asked: str) -> Registered | None:
    """The model `name:version`."""
    name, _, version = asked.partition(":")
    found = [_of(model) for model in assets.versions(cloud, name)]
    return next((model for model in found if model.version == version), None)


def newest(cloud: Cloud, recipe: Recipe) -> Registered | None:
    """The recipe's newest model in the workspace."""
    found = assets.versions(cloud, names.model_name(recipe))
    return _of(found[0]) if found else None


def _of(model: Any) -> Registered:
    tags = {str(key): str(value) for key, value in (model.tags or {}).items()}
    return Registered(
        name=str(model.name),
        version=str(model.version),
        job=tags.get(JOB, ""),
        size=int(tags.get(BYTES, "0")),
        tags=tags,
    )

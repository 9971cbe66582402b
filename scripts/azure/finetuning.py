"""Fine-tuning jobs of the model catalog: sent once, and the model that comes of one.

    job = submit(cloud, filled)              # forms.fill's document
    model = registered(cloud, job.name)      # what the service registered when it completed
    newest(cloud, recipe)                    # of the recipe's newest job that has one

azure-ai-ml 1.34.1 cannot send such a job: its output and its queue are classes of another API
version (`MLFlowModelJobOutput is not JSON serializable`), so the body is ours and goes by REST. The
model's name is in the job's own record, so nothing has to be remembered here.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from scripts.azure import assets, causes, download, jobs, models, names, retry
from scripts.azure.client import Cloud, NotFound
from scripts.azure.forms import OUTPUT, request
from scripts.azure.jobs import Job
from scripts.azure.models import Registered
from scripts.azure.retry import Refused
from scripts.azure.specs import Document
from scripts.azure.tags import BYTES, JOB, own
from scripts.console import say
from scripts.errors import CloudError, UsageError
from train.recipe import Recipe

API = "2024-10-01-preview"
"""The api-version that knows jobs of this kind."""
NAMESPACE = uuid.UUID("9d0a5d0c-8a0e-4f0e-9a57-6f1d7e3f6a11")
"""Of the names that the jobs' models get; any will do, if it stays the same."""


def guid(job: str) -> str:
    """For the name of the model of that job: always the same one, so that it is found again."""
    return str(uuid.uuid5(NAMESPACE, job))


def submit(cloud: Cloud, filled: Document) -> Job:
    """Send the job, or find it; a name is one job, so it is never there twice."""
    name, body = filled["name"], request(filled, cloud.workspace.id)
    if known := jobs.get(cloud, name):
        return known
    try:
        cloud.rest.put(f"{cloud.workspace.id}/jobs/{name}", body, API)
    except Refused as refused:
        if known := jobs.get(cloud, name):  # the reply of an earlier try was lost
            return known
        if cause := explain(str(refused)):
            raise CloudError(f"{refused} Known cause: {cause}") from refused
        raise
    return jobs.find(cloud, name)


def explain(text: str) -> str:
    """A cause that the service's sentence hides, and what to do; empty where none is known."""
    if "ModelNotSupportedByMaaS" in text or "not supported by MaaS" in text:
        return (
            "the service does not train this model on its own machines in this region: name a "
            "machine of yours in cloud.instance_type, or a cluster in cloud.compute."
        )
    return causes.explain(text) or ""


def model_name(properties: Mapping[str, Any]) -> str:
    """The model that the job registers; empty where it is no such job."""
    output = (properties.get("outputs") or {}).get(OUTPUT) or {}
    return str(output.get("assetName") or "")


def registered(cloud: Cloud, job: str) -> Registered:
    """The model that the completed job left; CloudError where it left none."""
    try:
        name = model_name(download.properties(cloud, job))
    except NotFound:
        raise CloudError(f"there is no job {job} in workspace {cloud.workspace.name}") from None
    found = assets.versions(cloud, name) if name else []
    if not found:
        raise CloudError(
            f"job {job} is Completed, but there is no model {name or 'of it'} in workspace "
            f"{cloud.workspace.name}: make cloud-logs JOB={job}"
        )
    version = str(found[0].version)
    model = models.named(cloud, f"{name}:{version}")
    if model is None:
        raise CloudError(f"model {name}:{version} was deleted meanwhile: make cloud-train")
    return model


def mark(cloud: Cloud, model: Registered, job: str, tags: Mapping[str, str]) -> Registered:
    """Put our tags on the model, which the service has registered without any."""
    if model.job == job:
        return model
    size = sum(blob.size for blob in download.files(cloud, _place(cloud, model)))
    entity = retry.call(
        f"read model {model.name}:{model.version}",
        lambda: cloud.ml.models.get(model.name, model.version),
    )
    entity.tags = {**(entity.tags or {}), **own({**tags, JOB: job, BYTES: str(size)})}
    retry.call(f"tag model {model.name}", lambda: cloud.ml.models.create_or_update(entity))
    say(f"model:  {model.id} ({size / 1e6:.1f} MB)")
    return models.named(cloud, f"{model.name}:{model.version}") or model


def _place(cloud: Cloud, model: Registered) -> str:
    return download.model_uri(cloud, model.name, model.version)


def newest(cloud: Cloud, recipe: Recipe) -> Registered:
    """The model of the recipe's newest completed job of this kind; UsageError where none is."""
    for job in jobs.newest_first(cloud, recipe.name):
        if job.status != "Completed":
            continue
        name = model_name(download.properties(cloud, job.name))
        if name and (found := assets.versions(cloud, name)):
            model = models.named(cloud, f"{name}:{found[0].version}")
            if model is not None:
                return model
    raise UsageError(
        f"no fine-tuning job of {names.model_name(recipe)} has left a model in workspace "
        f"{cloud.workspace.name}; next: make cloud-train"
    )

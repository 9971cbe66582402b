"""The specs of a recipe as files, for `az ml … create --file` or to read.

    for file in write(Path("specs"), recipe, plan): print(file)

The same documents that the verbs send (specs.py), with the recipe itself beside them. Nothing here
calls Azure.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scripts.azure import names, specs
from scripts.azure.plan import Plan
from scripts.azure.probes import probes_for
from scripts.azure.tags import RECIPE
from scripts.azure.timeouts import Timeouts
from scripts.local_train import files
from scripts.models import newest
from train.recipe import Recipe, dump

DEPLOYMENT = "blue"
UNKNOWN_BYTES = 60_000_000_000
"""Size of a model that nobody has seen yet: its probes rather wait too long than too short."""
NO_IMAGE = "The image is not in the registry yet: make cloud-push, and write these files again."


def write(folder: Path, recipe: Recipe, plan: Plan) -> Iterator[Path]:
    """Write the files into `folder`, which is made; each one's path."""
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / "recipe.yaml"
    own.write_text(dump(recipe), encoding="utf-8")
    yield own
    for kind, (document, remark) in _documents(own, recipe, plan).items():
        file = folder / f"{kind}.yml"
        lines = [f"azure/{kind}.yml with the values of {plan.path}, by make cloud-plan.", remark]
        header = "".join(f"# {line}\n" for line in lines if line)
        body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
        file.write_text(header + body, encoding="utf-8")
        yield file


def _documents(own: Path, recipe: Recipe, plan: Plan) -> dict[str, tuple[dict[str, Any], str]]:
    """Each document, and what is to be said of it."""
    tags = {RECIPE: recipe.name}
    job = plan.job or names.slug(recipe.name)
    endpoint = plan.endpoint or names.endpoint_name(recipe, "")
    inputs: dict[str, Any] = {"recipe": {"type": "uri_file", "path": str(own.resolve())}}
    documents: dict[str, tuple[dict[str, Any], str]] = {}
    paths = files(recipe)
    for key, path in paths.items():
        name = next(name for name, override in specs.OVERRIDES.items() if override == key)
        kind = "uri_folder" if path.is_dir() else "uri_file"
        inputs[name] = {"type": kind, "path": str(path)}
    if "data.train" in paths:
        path = paths["data.train"]
        name = f"{names.slug(recipe.name)}-rows"
        version = "1" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        documents["data"] = (specs.fill_data(name, version, path, tags=tags), "")
        inputs["train"]["path"] = f"azureml:{name}:{version}"
    environments = {}
    for role, image in (("train", plan.train.image), ("serve", plan.serve.image)):
        if image.reference:
            document, remark = specs.fill_environment(role, image.reference, tags=tags), ""
        else:
            document, remark = specs.document(f"environment-{role}"), NO_IMAGE
        documents[f"environment-{role}"] = (document, remark)
        environments[role] = f"azureml:{document['name']}:{document['version']}"
    documents["job"] = (
        specs.fill_job(
            name=job,
            base_name=job,
            environment=environments["train"],
            recipe=recipe,
            inputs=inputs,
            instance=plan.train.instance,
            tags=tags,
        ),
        "",
    )
    documents["model"] = (specs.fill_model(name=plan.model, job=job, tags=tags), "")
    documents["endpoint"] = (specs.fill_endpoint(endpoint, tags), "")
    size, remark = _model_bytes(recipe)
    documents["deployment"] = (
        specs.fill_deployment(
            name=DEPLOYMENT,
            endpoint=endpoint,
            model=f"azureml:{plan.model}:1",
            environment=environments["serve"],
            recipe=recipe,
            probes=probes_for(size),
            timeouts=Timeouts(),
            tags=tags,
        ),
        remark,
    )
    if recipe.cloud.compute:
        documents["compute"] = (specs.fill_compute(recipe, tags=tags), "")
    return documents


def _model_bytes(recipe: Recipe) -> tuple[int, str]:
    """Size of the model's weights as far as it is known here, and what it was taken from."""
    run = newest(recipe)
    folders = [run / "merged"] if run else []
    base = files(recipe).get("model.base")
    for folder in [*folders, *([base] if base else [])]:
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if size:
            return size, f"Probes are sized for the {size / 1e9:.3g} GB of weights here."
    if recipe.model.base == "tiny":
        return 0, ""
    return UNKNOWN_BYTES, "Probes are sized for 60 GB of weights, since the model is not here yet."

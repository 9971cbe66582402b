"""The YAML files of azure/ with a recipe's values, as the entities of azure-ai-ml.

    job = specs.job(name=name, environment="azureml:homeport-train:0123…", recipe=recipe, …)

Each `fill_…` reads its file, sets what the recipe and the caller decide, checks it and returns the
document; the function of the same name without `fill_` gives that document to the SDK's own
`load_…`, which holds it against Azure ML's schema. Nothing here calls Azure.
"""

import functools
import io
import logging
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import yaml

from scripts.azure import names
from scripts.azure.prices import Instance
from scripts.azure.probes import Probes
from scripts.azure.tags import own
from scripts.azure.timeouts import Timeouts
from scripts.errors import UsageError
from scripts.settings import ROOT
from train.recipe import Recipe

if TYPE_CHECKING:
    from azure.ai.ml import Input
    from azure.ai.ml.entities import Environment, Model

FOLDER = ROOT / "azure"
LOADERS = {
    "data": "load_data",
    "environment-train": "load_environment",
    "environment-serve": "load_environment",
    "job": "load_job",
    "model": "load_model",
    "endpoint": "load_online_endpoint",
    "deployment": "load_online_deployment",
    "compute": "load_compute",
}
"""The files of azure/ by name, and the SDK's function for each."""
OF_ROUTES = {"deployment-model": "load_online_deployment"}
"""Files that only other routes than the command job fill, and the SDK's function for each."""
OVERRIDES = {
    "train": "data.train",
    "validation": "data.validation",
    "base": "model.base",
    "adapter": "model.adapter",
}
"""Inputs of the job and the key of the recipe that each goes to; `recipe` is the recipe itself."""
MERGED = "outputs/model/paths/merged"
"""The model within a job's outputs; the last part is its folder's name where it is served."""
LONGEST_HOURS = {False: 21 * 24, True: 7 * 24}
"""Azure ends a job after this time, sooner on low-priority machines (how-to-manage-quotas)."""
BY_DIGEST = re.compile(r"[^\s@:]+(:\d+)?/[^\s@:]+@sha256:[0-9a-f]{64}")
BINDING = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
REMOTE = re.compile(r"(azureml|https?|wasbs?|abfss?|adl|file):")

TALKATIVE = ("azure.ai.ml._utils._experimental", "azure.ai.ml._schema.core.fields")
"""Loggers that say at every load of what is experimental, whether used or not."""

Document = dict[str, Any]
P = ParamSpec("P")


def document(kind: str) -> Document:
    """The file azure/`kind`.yml as it stands, with relative paths made absolute."""
    values: Document = yaml.safe_load((FOLDER / f"{kind}.yml").read_text(encoding="utf-8"))
    holders = [values, *values.get("inputs", {}).values()]
    for holder in holders:
        if "path" in holder:
            holder["path"] = _absolute(holder["path"], FOLDER)
    return values


def entity(kind: str, filled: Document) -> Any:
    """The SDK's entity of the document; UsageError where it is not of Azure ML's schema."""
    import azure.ai.ml as sdk
    from azure.ai.ml.exceptions import ValidationException
    from marshmallow import ValidationError

    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    text = io.StringIO(yaml.safe_dump(filled, sort_keys=False, allow_unicode=True))
    file = FOLDER / f"{kind}.yml"
    try:
        load = getattr(sdk, {**LOADERS, **OF_ROUTES}[kind])
        return load(text, relative_origin=str(file))
    except (ValidationError, ValidationException) as error:
        raise UsageError(f"azure/{kind}.yml is not of Azure ML's schema: {_said(error)}") from None


def _loaded(kind: str, fill: Callable[P, Document]) -> Callable[P, Any]:
    @functools.wraps(fill)
    def load(*args: P.args, **kwargs: P.kwargs) -> Any:
        filled = fill(*args, **kwargs)
        return entity(f"environment-{args[0]}" if kind == "environment" else kind, filled)

    return load


def fill_data(
    name: str, version: str, path: str | Path, *, tags: Mapping[str, str] | None = None
) -> Document:
    """A file or folder of rows as a data asset; `path` may be one of Azure's (`azureml://…`)."""
    filled = document("data")
    folder = str(path).endswith("/") or Path(path).is_dir()
    kind = "uri_folder" if folder else "uri_file"
    filled.update(name=name, version=str(version), path=_absolute(path, Path.cwd()), type=kind)
    return _tagged(filled, tags)


def fill_environment(role: str, image: str, *, tags: Mapping[str, str] | None = None) -> Document:
    """The `train` or `serve` image, by digest; its version is the digest's first 12 digits."""
    check_image(image)
    filled = document(f"environment-{role}")
    filled.update(image=image, version=environment_version(image))
    return _tagged(filled, tags)


def environment_version(image: str) -> str:
    """Version of the environment with that image."""
    return image.partition("@sha256:")[2][:12]


def fill_job(
    *,
    name: str,
    base_name: str,
    environment: "str | Environment",
    recipe: Recipe,
    inputs: "Mapping[str, Input | Mapping[str, Any]]",
    instance: Instance,
    tags: Mapping[str, str] | None = None,
    environment_variables: Mapping[str, str] | None = None,
) -> Document:
    """The command job. `inputs`: `recipe`, `train` and, where needed, others of OVERRIDES.

    `base_name` is the job's name without the attempt: all attempts share the folder of their runs.
    """
    cloud = recipe.cloud
    names.check_job(name)
    unknown = set(inputs) - {"recipe", *OVERRIDES}
    if unknown or "recipe" not in inputs:
        raise UsageError(f"the job's inputs are {sorted(inputs)}: recipe, and of {[*OVERRIDES]}.")
    filled = document("job")
    command = filled["command"].replace(" data.train=${{inputs.train}}", "")
    overrides = [f"{key}=${{{{inputs.{i}}}}}" for i, key in OVERRIDES.items() if i in inputs]
    filled.update(
        name=name,
        display_name=name,
        experiment_name=recipe.name,
        command=" ".join([command, *overrides]),
        environment=_reference(environment),
        inputs={key: _input(value) for key, value in inputs.items()},
        limits={"timeout": timeout_seconds(recipe)},
        environment_variables={**filled["environment_variables"], **(environment_variables or {})},
    )
    filled["outputs"]["runs"]["path"] = (
        f"azureml://datastores/workspaceblobstore/paths/homeport/{base_name}/runs"
    )
    filled["distribution"]["process_count_per_instance"] = max(1, instance.gpus)
    filled["resources"] = {
        "instance_count": cloud.nodes,
        "shm_size": "16g" if instance.gpus else "2g",  # workers and ranks share memory
    }
    if cloud.compute:
        names.check_compute(cloud.compute)
        filled["compute"] = f"azureml:{cloud.compute}"
    else:
        filled["resources"]["instance_type"] = instance.name
        if cloud.spot:
            filled["queue_settings"] = {"job_tier": "spot"}
    if cloud.hub_token_secret:
        filled["identity"] = {"type": "managed"}  # it reads the secret
    check_job(filled)
    return _tagged(filled, tags)


def fill_model(*, name: str, job: str, tags: Mapping[str, str] | None = None) -> Document:
    """The merged model of the job of that name."""
    filled = document("model")
    filled.update(name=name, path=f"azureml://jobs/{job}/{MERGED}")
    return _tagged(filled, tags)


def fill_endpoint(name: str, tags: Mapping[str, str] | None = None) -> Document:
    """An endpoint with a key."""
    names.check_endpoint(name)
    filled = document("endpoint")
    filled.update(name=name)
    return _tagged(filled, tags)


def fill_deployment(
    *,
    name: str,
    endpoint: str,
    model: "str | Model",
    environment: "str | Environment",
    recipe: Recipe,
    probes: Probes,
    timeouts: Timeouts,
    tags: Mapping[str, str] | None = None,
) -> Document:
    """The serve image with the model, on the machines that the recipe names."""
    names.check_deployment(name)
    names.check_endpoint(endpoint)
    timeouts.check()
    filled = document("deployment")
    filled.update(
        name=name,
        endpoint_name=endpoint,
        model=_reference(model),
        environment=_reference(environment),
        instance_type=recipe.cloud.serve_instance_type,
        instance_count=recipe.cloud.serve_instances,
        liveness_probe=probes.liveness(),
        readiness_probe=probes.readiness(),
    )
    filled["request_settings"]["request_timeout_ms"] = timeouts.request_timeout_ms
    filled["environment_variables"]["SERVE_REQUEST_SECONDS"] = f"{timeouts.generation_seconds:g}"
    return _tagged(filled, tags)


def fill_compute(recipe: Recipe, *, tags: Mapping[str, str] | None = None) -> Document:
    """The cluster that the recipe names, with no node at rest."""
    names.check_compute(recipe.cloud.compute)
    filled = document("compute")
    filled.update(
        name=recipe.cloud.compute,
        size=recipe.cloud.instance_type,
        tier="low_priority" if recipe.cloud.spot else "dedicated",
        max_instances=recipe.cloud.nodes,
    )
    return _tagged(filled, tags)


data = _loaded("data", fill_data)
environment = _loaded("environment", fill_environment)
job = _loaded("job", fill_job)
model = _loaded("model", fill_model)
endpoint = _loaded("endpoint", fill_endpoint)
deployment = _loaded("deployment", fill_deployment)
compute = _loaded("compute", fill_compute)


def timeout_seconds(recipe: Recipe) -> int:
    """Seconds after which Azure ends the job; UsageError where it would run without a limit."""
    hours, spot = recipe.cloud.max_hours, recipe.cloud.spot
    longest = LONGEST_HOURS[spot]
    if not math.isfinite(hours) or not 0 < hours <= longest:
        raise UsageError(
            f"cloud.max_hours is {hours:g}: a job needs a time limit, of at most {longest} hours"
            f"{' on low-priority machines' if spot else ''}, or nobody knows what it can cost."
        )
    return math.ceil(hours * 3600)


def check_job(filled: Document) -> None:
    """UsageError for a command that Azure would run otherwise than it reads, or without a limit."""
    check_command(filled["command"], filled.get("inputs", {}), filled.get("outputs", {}))
    if not (filled.get("limits") or {}).get("timeout"):
        raise UsageError("the job has no limits.timeout: without one, nobody knows what it costs.")


def check_command(
    command: str, inputs: Mapping[str, Any] | None = None, outputs: Mapping[str, Any] | None = None
) -> None:
    """UsageError for `${inputs.x}`, which Azure leaves as it is, or a name that is no input.

    The SDK accepts a single brace without a word; the job then gets the text instead of a path.
    """
    single = re.search(r"(?<!\$)\$\{(?!\{)\s*(inputs|outputs)[^}]*\}?", command)
    if single:
        raise UsageError(
            f"the job's command has {single.group()}: Azure replaces only two braces, "
            "${{inputs.name}} (in a Python f-string four are written for two)."
        )
    if inputs is None or outputs is None:
        return
    known = {"inputs": inputs, "outputs": outputs}
    for kind, name in BINDING.findall(command):
        if name not in known[kind]:
            raise UsageError(
                f"the job's command uses {kind}.{name}, which the job does not have; it has: "
                f"{', '.join(known[kind]) or 'none'}."
            )


def check_image(image: str) -> None:
    """UsageError for an image by tag: what runs must be what was tested."""
    if not BY_DIGEST.fullmatch(image):
        raise UsageError(
            f"image {image!r} is not named by digest: use REGISTRY/REPOSITORY@sha256:… as "
            "`make cloud-push` prints it."
        )


def _said(error: Exception) -> str:
    """What the SDK found wrong, without its advice on editors; for jobs it nests its own report."""
    text = " ".join(str(error).replace("\\n", " ").replace('\\"', '"').split())
    found = text.rpartition("failed:")[2]
    return re.split(r"If you are trying|Visit this link|The easiest way", found)[0].strip()


def _tagged(filled: Document, tags: Mapping[str, str] | None) -> Document:
    """With our mark, and the caller's tags instead of the file's."""
    filled["tags"] = own(tags)
    return filled


def _reference(asset: Any) -> str:
    """`azureml:NAME:VERSION` of an entity, or the text that was given."""
    if isinstance(asset, str):
        return asset if asset.startswith(("azureml:", "/")) else f"azureml:{asset}"
    return f"azureml:{asset.name}:{asset.version}"


def _input(value: Any) -> Document:
    """An input as the schema has it, of the SDK's Input or of such a document."""
    keys = ("type", "path", "mode")
    given = value if isinstance(value, Mapping) else {k: getattr(value, k, None) for k in keys}
    filled = {k: v for k, v in given.items() if v is not None}
    filled["path"] = _absolute(filled["path"], Path.cwd())
    return filled


def _absolute(path: str | Path, base: Path) -> str:
    """`path` below `base`, unless it lies elsewhere than on this machine."""
    text = str(path)
    return (
        text
        if REMOTE.match(text) or text.startswith("/subscriptions/")
        else str((base / text).resolve())
    )

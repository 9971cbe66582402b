"""Names of what we make on Azure, and Azure's rules for them, checked before any call.

A job's name comes of what it does: the same command finds the job that runs or has run, instead of
paying twice. Nothing here calls Azure.
"""

import hashlib
import re

from scripts.errors import UsageError
from train.recipe import Recipe, dump

ENDPOINT = re.compile(r"[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?")
"""Of endpoints and deployments (azure-ai-ml, EndpointConfigurations.NAME_REGEX_PATTERN)."""
ENDPOINT_LENGTH = (3, 32)
COMPUTE = re.compile(r"(?!.*-\d+$)[A-Za-z][-A-Za-z0-9]*")
"""Microsoft.MachineLearningServices, computeName: `-` and digits may not be its end."""
COMPUTE_LENGTH = (3, 24)
ASSET = re.compile(r"[A-Za-z0-9][-_A-Za-z0-9]*")
"""Of jobs, and of models and data, which may also have dots; we use none."""
ASSET_LENGTH = (1, 255)
JOB_SLUG = 40
HASH = 10


def job_name(recipe_name: str, image_digest: str, recipe_hash: str, data_hash: str) -> str:
    """`<slug>-<10 hex>`: the same image, recipe and data give the same name."""
    text = "\n".join((recipe_name, image_digest, recipe_hash, data_hash))
    return f"{slug(recipe_name)[:JOB_SLUG].rstrip('-')}-{_hex(text, HASH)}"


def attempt(base: str, number: int) -> str:
    """Name of the job's first attempt (`base`), second (`base-2`), …: Azure uses a name once."""
    return base if number <= 1 else f"{base}-{number}"


def recipe_hash(recipe: Recipe) -> str:
    """Hash of what is trained; where, and for how much, is no part of it."""
    return hashlib.sha256(dump(recipe).encode()).hexdigest()


def endpoint_name(recipe: Recipe, workspace_guid: str) -> str:
    """The recipe's own, or one of its name and the workspace, as names are taken once a region."""
    if recipe.cloud.endpoint:
        check_endpoint(recipe.cloud.endpoint)
        return recipe.cloud.endpoint
    suffix = _hex(workspace_guid, 6)
    name = slug(recipe.name)
    name = name if name[0].isalpha() else f"m-{name}"
    return f"{name[: ENDPOINT_LENGTH[1] - len(suffix) - 1].rstrip('-')}-{suffix}"


def model_name(recipe: Recipe) -> str:
    """Name of the model that the recipe's jobs register, version by version."""
    return recipe.name


def slug(name: str) -> str:
    """`name` in small letters, digits and single hyphens; a name of nothing else gives `model`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"


def check_endpoint(name: str) -> None:
    """UsageError where Azure would refuse the endpoint's name."""
    rule = "letters, digits and hyphens, the first a letter and the last no hyphen"
    _check("the endpoint's name", name, ENDPOINT, ENDPOINT_LENGTH, rule, "cloud.endpoint")


def check_deployment(name: str) -> None:
    """UsageError where Azure would refuse the deployment's name."""
    rule = "letters, digits and hyphens, the first a letter and the last no hyphen"
    _check("the deployment's name", name, ENDPOINT, ENDPOINT_LENGTH, rule, "another name")


def check_compute(name: str) -> None:
    """UsageError where Azure would refuse the cluster's name."""
    rule = "letters, digits and hyphens, the first a letter, and no end of a hyphen and digits"
    _check("the cluster's name", name, COMPUTE, COMPUTE_LENGTH, rule, "cloud.compute")


def check_job(name: str) -> None:
    """UsageError where Azure would refuse the job's name."""
    rule = "letters, digits, hyphens and underscores, the first a letter or digit"
    _check("the job's name", name, ASSET, ASSET_LENGTH, rule, "another name")


def _check(
    what: str, name: str, pattern: re.Pattern[str], length: tuple[int, int], rule: str, key: str
) -> None:
    low, high = length
    if low <= len(name) <= high and pattern.fullmatch(name):
        return
    setting = f"set {key}=…" if key.startswith("cloud.") else f"choose {key}"
    raise UsageError(
        f"{what} {name!r} has {len(name)} characters or wrong ones: Azure takes {low} to {high} "
        f"{rule}; {setting}"
    )


def _hex(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]

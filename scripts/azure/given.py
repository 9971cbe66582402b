"""What the cloud verbs are given beside their recipe's path: overrides, endpoint, way to push."""

import shlex
from pathlib import Path

from scripts.errors import UsageError
from scripts.local_train import DEFAULT_RECIPE, find_recipe, read_set
from train.recipe import Recipe

PUSH = ("here", "build")
"""Who builds and pushes an image: the engine here, or the workspace's registry."""


def overrides(text: str, endpoint: str = "") -> list[str]:
    """The recipe's overrides of SET, and of ENDPOINT; UsageError where quotes are left open."""
    found = read_set(text)
    return [*found, f"cloud.endpoint={endpoint}"] if endpoint else found


def chosen(path: Path, settings: str = "", endpoint: str = "", *, always: bool = False) -> str:
    """` RECIPE=… SET=… ENDPOINT=…` for the next command; what is the default is left out.

    With `always` the recipe is named all the same.
    """
    named = {
        "RECIPE": str(path) if always or str(path) != DEFAULT_RECIPE else "",
        "SET": settings,
        "ENDPOINT": endpoint,
    }
    return "".join(f" {key}={shlex.quote(value)}" for key, value in named.items() if value)


def optional(path: str, settings: str = "") -> Recipe | None:
    """The recipe where one is named, for verbs that also work without."""
    return find_recipe(Path(path), overrides(settings)) if path else None


def need_own_images(recipe: Recipe, what: str) -> None:
    """UsageError for a verb that does `what` where the recipe's route has no use for it."""
    if recipe.cloud.route != "command_job":
        raise UsageError(
            f"cloud.route is {recipe.cloud.route}, which has no use for {what}: make cloud-train "
            "does all that it needs."
        )


def check_push(way: str) -> None:
    """UsageError where PUSH is neither `here` nor `build`."""
    if way not in PUSH:
        raise UsageError(f"PUSH is {way!r}: use {' or '.join(PUSH)}.")

"""Fine-tune the model of a recipe on this machine, in the train container or without one."""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from scripts.console import run_verb, say
from scripts.docker import Compose
from scripts.errors import MachineError, UsageError
from scripts.host import Host
from scripts.models import free_memory, newest
from scripts.runtime import choose_device, choose_runtime
from scripts.settings import (
    GIGABYTE,
    ROOT,
    environment,
    flag_default,
    overrides_in,
    relative,
    typed,
)
from train import recipe as recipes
from train.recipe import Recipe

DEFAULT_RECIPE = "recipes/tiny-ja.yaml"
ELSEWHERE = re.compile(r"^(hf|azureml|https):|[*?\[]")
"""Names of rows that are no path of this machine, or many."""
TRAINING_BYTES = 2 * GIGABYTE
"""What training takes at the very least; a large model's need is checked where it is loaded."""


def choose(asked: str) -> Compose | Host:
    """The runtime that RUNTIME and HOMEPORT_DEVICE ask for, said aloud with its reasons."""
    environ = environment()
    runtime = choose_runtime(asked)
    device = choose_device(environ, runtime.value)
    say(f"runtime: {runtime}, device: {device}")
    return (Compose if runtime.value == "docker" else Host)(environ, device)


def read_set(text: str) -> list[str]:
    """The overrides in SET; UsageError where quotes are left open."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"SET={text} cannot be split ({error}): give key=value pairs with spaces between them."
        ) from None


def find_recipe(path: Path, overrides: Sequence[str]) -> Recipe:
    """Read and check the recipe here, so that a mistake is told before anything is built."""
    recipe = recipes.load(path, overrides, overrides_in(environment()))
    for key, file in files(recipe).items():
        if not file.exists():
            raise UsageError(f"{relative(path)}: {key} names {file}, which does not exist.")
    return recipe


def files(recipe: Recipe) -> dict[str, Path]:
    """The recipe's paths on this machine, by recipe key; a hub id or `tiny` is none."""
    named = {
        "data.train": recipe.data.train,
        "data.validation": recipe.data.validation,
        "model.adapter": recipe.model.adapter,
    }
    paths = {
        key: _absolute(name) for key, name in named.items() if name and not ELSEWHERE.search(name)
    }
    if _absolute(recipe.model.base).is_dir() and recipe.model.base != "tiny":
        paths["model.base"] = _absolute(recipe.model.base)
    return paths


def _absolute(name: str) -> Path:
    return (ROOT / name).resolve()


def train(
    runtime: Compose | Host,
    recipe: Recipe,
    path: Path,
    overrides: Sequence[str],
    *,
    fresh: bool = False,
) -> Path:
    """Train, or go on with an unfinished run unless `fresh`; the finished run's folder."""
    free = free_memory()
    if free is not None and free < TRAINING_BYTES:
        raise MachineError(
            f"training needs {TRAINING_BYTES / GIGABYTE:.0f} GB of free memory, this machine has "
            f"{free / GIGABYTE:.1f}: close programs and try again."
        )
    flags = ["--fresh"] if fresh else []
    runtime.train(path.resolve(), overrides, {"recipe": path.resolve(), **files(recipe)}, flags)
    run = newest(recipe)
    if run is None:
        raise MachineError(f"training ended, but outputs/{recipe.name}/latest is not there.")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make local-train", description="Fine-tune on this machine."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument(
        "--runtime", default=flag_default("RUNTIME", "auto"), help="auto, docker or host"
    )
    parser.add_argument(
        "--set",
        default=flag_default("SET"),
        help='overrides, as in "training.max_steps=50 lora.r=4"',
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        default=bool(flag_default("FRESH")),
        help="start anew, even if a run is unfinished",
    )
    arguments = parser.parse_args()
    overrides = read_set(arguments.set)
    recipe = find_recipe(arguments.recipe, overrides)
    runtime = choose(arguments.runtime)
    run = train(runtime, recipe, arguments.recipe, overrides, fresh=arguments.fresh)
    say(f"trained: {relative(run)}")
    say(f"next:    make local-serve RECIPE={typed(arguments.recipe)}")
    print(run)


if __name__ == "__main__":
    run_verb(main)

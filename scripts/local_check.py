"""Check a recipe in seconds: its files, rows, template and targets, and what memory it needs."""

import argparse
from pathlib import Path

from scripts.console import run_verb
from scripts.local_train import DEFAULT_RECIPE, choose, files, find_recipe, read_set
from scripts.settings import flag_default


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make local-check", description="Check a recipe, and estimate memory and time."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument(
        "--runtime", default=flag_default("RUNTIME", "auto"), help="auto, docker or host"
    )
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--gpu", default=flag_default("GPU"), help="estimate for this GPU, such as H100"
    )
    arguments = parser.parse_args()
    overrides = read_set(arguments.set)
    recipe = find_recipe(arguments.recipe, overrides)
    path = arguments.recipe.resolve()
    flags = ["--check", *(["--gpu", arguments.gpu] if arguments.gpu else [])]
    choose(arguments.runtime).train(path, overrides, {"recipe": path, **files(recipe)}, flags)


if __name__ == "__main__":
    run_verb(main)

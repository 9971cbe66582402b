"""Print the endpoint's key on stdout and nowhere else, for a request made by hand."""

import argparse
from pathlib import Path

from scripts.azure import routes
from scripts.azure.given import overrides
from scripts.console import run_verb
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-key", description="Print the key of the endpoint (make -s cloud-key)."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--endpoint", default=flag_default("ENDPOINT"), help="its name, instead of a recipe"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set, arguments.endpoint))
    from scripts.azure.client import connect

    print(routes.of(recipe).key(connect(), recipe))


if __name__ == "__main__":
    run_verb(main)

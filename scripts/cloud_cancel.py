"""Cancel a job, the recipe's newest one by default, and wait until it has ended.

What it has written stays: its log, and a command job's checkpoints, from which `make cloud-train`
goes on.
"""

import argparse
import json
from pathlib import Path

from scripts.azure import routes
from scripts.azure.given import overrides
from scripts.console import run_verb
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default


def main() -> None:
    parser = argparse.ArgumentParser(prog="make cloud-cancel", description="Cancel the job.")
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument("--job", default=flag_default("JOB"), help="its name, instead of a recipe")
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    from scripts.azure.client import connect

    cloud = connect()
    route = routes.of_job(cloud, recipe, arguments.job)
    found = {**route.cancel(cloud, recipe, arguments.job), "label": cloud.label()}
    print(json.dumps(found, ensure_ascii=False) if arguments.json else found["status"])


if __name__ == "__main__":
    run_verb(main)

"""Fetch a job's finished run into outputs/, the recipe's newest job by default, and verify it.

Each file has the size and, where storage knows it, the MD5 of what lies there; given again, only
what is missing is fetched. `latest` then points to the run, so `make local-serve` serves it.
"""

import argparse
import json
from pathlib import Path

from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import OUTPUTS, flag_default, relative


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-download", description="Fetch the job's results into outputs/."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument("--job", default=flag_default("JOB"), help="its name; else the newest")
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    from scripts.azure import download, jobs
    from scripts.azure.client import connect
    from scripts.azure.tags import RECIPE

    cloud = connect()
    job = jobs.named_or_newest(cloud, arguments.job, recipe.name)
    name = job.tags.get(RECIPE, recipe.name)
    folder = download.results(cloud, job.name, name, OUTPUTS)
    if arguments.json:
        print(json.dumps({"job": job.name, "run": str(folder), "label": cloud.label()}))
    else:
        print(relative(folder))
    say(f"next:   make local-serve MODEL={relative(folder)}")


if __name__ == "__main__":
    run_verb(main)

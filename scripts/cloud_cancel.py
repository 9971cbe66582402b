"""Cancel a job, the recipe's newest one by default, and wait until it has ended.

What it has written stays: checkpoints, from which `make cloud-train` goes on, and its log.
"""

import argparse
import json
from pathlib import Path

from scripts.azure.given import overrides
from scripts.console import run_verb, say
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
    recipe = None
    if not arguments.job:
        recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    from scripts.azure import jobs
    from scripts.azure.client import connect

    cloud = connect()
    job = jobs.named_or_newest(cloud, arguments.job, recipe.name if recipe else "")
    if job.over:
        say(f"job:    {job.name} was over already; nothing to cancel")
    end = jobs.cancel(cloud, job.name)
    say(f"job:    {jobs.ended(job, end)}")
    if arguments.json:
        found = {"job": job.name, "status": end.status, "hours": round(end.hours, 4)}
        cost = job.cost_at_most(end)
        print(json.dumps({**found, "cost_at_most": cost, "label": cloud.label()}))
    else:
        print(end.status)


if __name__ == "__main__":
    run_verb(main)

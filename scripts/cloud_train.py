"""Fine-tune on Azure, or go on with the job that does so already; registers the model.

Which way, the recipe's `cloud.route` says. The job's name comes of what it does, so the same
command finds the same job: it follows one that runs, takes the result of one that is completed, and
says why one has failed before it asks for the next attempt.
"""

import argparse
import json
from pathlib import Path

from scripts.azure import routes
from scripts.azure.given import chosen, overrides
from scripts.console import run_verb, say
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-train",
        description="Fine-tune on Azure, or go on with the job that does; register the model.",
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--yes", action="store_true", default=bool(flag_default("YES")), help="agree to the cost"
    )
    parser.add_argument(
        "--detach", action="store_true", default=bool(flag_default("DETACH")), help="do not follow"
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    from scripts.azure.client import connect

    cloud = connect()
    named = chosen(arguments.recipe, arguments.set, always=True)
    work = routes.Work(
        cloud=cloud,
        recipe=recipe,
        path=arguments.recipe,
        yes=arguments.yes,
        again=f"make cloud-train{named}",
        chosen=chosen(arguments.recipe, arguments.set),
    )
    done = routes.of(recipe).train(work, detach=arguments.detach)
    if arguments.json:
        found = {**done.as_json(), "label": cloud.label()}
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print(done.model or done.job)
    if not done.model:
        say(f"follow: {work.again}")
        return
    if cloud.label():
        say(f"note:   {cloud.label()}")
    say(f"next:   make cloud-deploy{named}")


if __name__ == "__main__":
    run_verb(main)

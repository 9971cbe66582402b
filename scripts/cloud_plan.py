"""What would run on Azure, on which image, on what, for how long at most, and what that can cost.

With --specs it also writes the files of a command job for the `az ml` command line. It starts
nothing.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.azure import routes
from scripts.azure.given import chosen, overrides
from scripts.console import run_verb, say
from scripts.errors import UsageError
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import ROOT, environment, flag_default, relative

if TYPE_CHECKING:
    from scripts.azure.client import Cloud


def reason_offline(asked: bool) -> str:
    """Why no workspace is asked; empty where one is."""
    from scripts.azure.client import KEYS

    if asked:
        return "--offline"
    environ = environment()
    if any(environ.get(key) for key in KEYS) or (ROOT / "config.json").is_file():
        return ""
    return f"no workspace is set: {', '.join(KEYS)} in .env"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-plan", description="Say what would run on Azure, and what it can cost."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--offline", action="store_true", help="without asking the workspace (quota, images)"
    )
    parser.add_argument(
        "--specs",
        type=Path,
        default=flag_default("SPECS") or None,
        metavar="FOLDER",
        help="write the recipe's specs there, for az ml",
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    if arguments.specs and recipe.cloud.route != "command_job":
        raise UsageError(
            f"SPECS writes the files of a command job, and cloud.route is {recipe.cloud.route}: "
            "leave SPECS out; azure/ holds that route's own specs."
        )
    cloud: Cloud | None = None
    if why := reason_offline(arguments.offline):
        say(f"azure:  not asked ({why})")
    else:
        from scripts.azure.client import connect

        cloud = connect()
    planned = routes.of(recipe).plan(recipe, arguments.recipe, cloud)
    if arguments.specs:
        from scripts.azure import plan as plans
        from scripts.azure.written import write

        plan = plans.build(recipe, arguments.recipe, cloud)
        for file in write(arguments.specs, recipe, plan):
            say(f"wrote:  {relative(file)}")
    if arguments.json:
        found = {"route": recipe.cloud.route, **planned.values}
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    print(routes.text(planned))
    say(f"next:   make cloud-train{chosen(arguments.recipe, arguments.set, always=True)}")


if __name__ == "__main__":
    run_verb(main)

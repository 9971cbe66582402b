"""Serve the recipe's newest model on Azure: beside what is served there now, then instead of it.

With FINISH=1 it deletes the deployments without traffic that an earlier rollout has kept.
"""

import argparse
import json
from pathlib import Path

from scripts.azure import deploying, routes
from scripts.azure.given import chosen, overrides
from scripts.console import run_verb
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-deploy", description="Serve a registered model on an Azure endpoint."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--model",
        default=flag_default("MODEL"),
        help="name:version of a registered model, instead of the recipe's newest",
    )
    parser.add_argument(
        "--endpoint", default=flag_default("ENDPOINT"), help="instead of the recipe's"
    )
    parser.add_argument(
        "--yes", action="store_true", default=bool(flag_default("YES")), help="agree to the cost"
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        default=bool(flag_default("FINISH")),
        help="delete the deployments without traffic",
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="one JSON object"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set, arguments.endpoint))
    if recipe.cloud.route != "azure_openai":  # which has names of its own
        deploying.check_reference(arguments.model)
    from scripts.azure.client import connect

    named = chosen(arguments.recipe, arguments.set, arguments.endpoint)
    work = routes.Work(
        cloud=connect(),
        recipe=recipe,
        path=arguments.recipe,
        yes=arguments.yes,
        again=f"make cloud-deploy{named}{f' MODEL={arguments.model}' if arguments.model else ''}",
        chosen=named,
    )
    route = routes.of(recipe)
    found = route.deploy(work, model=arguments.model, finish=arguments.finish)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    elif "uri" in found:
        print(found["uri"])


if __name__ == "__main__":
    run_verb(main)

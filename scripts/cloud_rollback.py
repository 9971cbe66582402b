"""Give all traffic back to the deployment that had it before the last rollout."""

import argparse
import json
from pathlib import Path

from scripts.azure import routes
from scripts.azure.given import chosen, overrides
from scripts.console import run_verb
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-rollback", description="Go back to the deployment before."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--endpoint", default=flag_default("ENDPOINT"), help="instead of the recipe's"
    )
    parser.add_argument(
        "--yes", action="store_true", default=bool(flag_default("YES")), help="agree to the cost"
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="one JSON object"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set, arguments.endpoint))
    from scripts.azure.client import connect

    named = chosen(arguments.recipe, arguments.set, arguments.endpoint)
    work = routes.Work(
        cloud=connect(),
        recipe=recipe,
        path=arguments.recipe,
        yes=arguments.yes,
        again=f"make cloud-rollback{named}",
        chosen=named,
    )
    found = routes.of(recipe).rollback(work)
    print(json.dumps(found, ensure_ascii=False) if arguments.json else found["deployment"])


if __name__ == "__main__":
    run_verb(main)

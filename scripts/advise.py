"""Which of the four ways to fine-tune on Azure are open to a recipe today, and which we would take.

Offline it knows azure/catalog.yml and azure/prices.yml; where a workspace is named it also asks the
model's registry, the quota and the Azure OpenAI resources. It changes nothing.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.azure.given import overrides
from scripts.cloud_plan import reason_offline
from scripts.console import run_verb, say
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default

if TYPE_CHECKING:
    from scripts.azure.client import Cloud


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make advise", description="Say which ways to fine-tune are open, and their costs."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument("--offline", action="store_true", help="without asking Azure")
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    from scripts.azure import advice

    cloud: Cloud | None = None
    if why := reason_offline(arguments.offline):
        say(f"azure:  not asked ({why})")
    else:
        from scripts.azure.client import connect

        cloud = connect()
    found = advice.advise(recipe, cloud)
    if arguments.json:
        print(json.dumps(advice.as_json(found), ensure_ascii=False, indent=2))
    else:
        print(advice.text(found, str(arguments.recipe)))


if __name__ == "__main__":
    run_verb(main)

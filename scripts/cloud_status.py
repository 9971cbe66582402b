"""What of ours is in the workspace, and what bills: since when, and how much."""

import argparse
import json
from datetime import UTC, datetime

from scripts.azure.given import optional
from scripts.console import run_verb
from scripts.settings import flag_default


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-status",
        description="Show jobs, endpoints and clusters of the workspace, and what bills now.",
    )
    parser.add_argument(
        "--recipe",
        default=flag_default("RECIPE"),
        help="also the Azure OpenAI resource that this one deploys to, in whatever tenant",
    )
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="one JSON object"
    )
    arguments = parser.parse_args()
    recipe = optional(arguments.recipe, arguments.set)
    from scripts.azure import billing, images, status
    from scripts.azure.client import connect

    cloud = connect()
    inventory = billing.survey(cloud, recipe)
    now = datetime.now(UTC)
    found = status.report(
        cloud.workspace,
        inventory,
        billing.bill(inventory, now),
        now,
        images.passed,
        cloud.label(),
    )
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    print("\n".join(status.table(found)))


if __name__ == "__main__":
    run_verb(main)

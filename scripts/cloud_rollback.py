"""Give all traffic back to the deployment that had it before the last rollout."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.errors import CloudError, UsageError
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default

if TYPE_CHECKING:
    from scripts.azure.client import Cloud


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
        "--json", action="store_true", default=bool(flag_default("JSON")), help="one JSON object"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set, arguments.endpoint))
    from scripts.azure import names
    from scripts.azure.client import connect

    cloud = connect()
    found = roll_back(cloud, names.endpoint_name(recipe, cloud.workspace.guid))
    print(json.dumps(found, ensure_ascii=False) if arguments.json else found["deployment"])


def roll_back(cloud: "Cloud", name: str) -> dict[str, Any]:
    """Ask the deployment before whether it answers, then give it all traffic."""
    from scripts.azure import endpoints, rollout, splits
    from scripts.azure.billing import total
    from scripts.azure.scoring import ScoringError
    from scripts.azure.tags import PREVIOUS
    from scripts.azure.texts import money
    from scripts.azure.timeouts import Timeouts

    there = endpoints.need(cloud, name)
    target = splits.before(there)
    if target is None:
        raise UsageError(
            f"{name} has no deployment to go back to; next: make cloud-deploy MODEL=name:version "
            "of the model before"
        )
    try:
        rollout.client(cloud, there, Timeouts().client_seconds).ask(
            rollout.SMOKE, deployment=target.name
        )
    except ScoringError as error:
        raise CloudError(f"{target.name} does not answer, so nothing was moved: {error}") from error
    left = splits.without(there.traffic, target.name)
    previous = max(left, key=lambda other: left[other], default="")
    tags = {PREVIOUS: previous} if previous else {}
    endpoints.set_traffic(cloud, name, {target.name: 100}, tags)
    label = f" ({cloud.label()})" if cloud.label() else ""
    say(f"served: {target.name} ({target.model}) has all traffic of {name} again{label}")
    kept = [d for d in there.deployments if d.name != target.name]
    for deployment in kept:
        say(
            f"kept:   {deployment.name}, without traffic, bills {money(total([deployment]))} per "
            "hour; delete it: make cloud-deploy FINISH=1"
        )
    return {
        "endpoint": name,
        "deployment": target.name,
        "model": target.model,
        "traffic": {target.name: 100},
        "kept": [d.name for d in kept],
        "label": cloud.label(),
    }


if __name__ == "__main__":
    run_verb(main)

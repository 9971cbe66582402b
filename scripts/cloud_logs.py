"""Follow the log of a job, the recipe's newest one by default, until it ends; stdout is the log.

Of a job that is over it prints the log and how it ended. ENDPOINT=… prints the logs of both
containers of each of its deployments instead.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.azure import routes
from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default

if TYPE_CHECKING:
    from scripts.azure.client import Cloud


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-logs", description="Follow the job's log until it ends."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument("--job", default=flag_default("JOB"), help="its name, instead of a recipe")
    parser.add_argument(
        "--all",
        action="store_true",
        default=bool(flag_default("ALL")),
        help="all log files as they are now, the system's too",
    )
    parser.add_argument(
        "--endpoint", default=flag_default("ENDPOINT"), help="its containers' logs instead"
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    from scripts.azure.client import connect

    cloud = connect()
    if arguments.endpoint:
        _endpoint(cloud, arguments.endpoint, arguments.json)
        return
    every = arguments.all or arguments.json
    route = routes.of_job(cloud, recipe, arguments.job)
    found = dict(route.logs(cloud, recipe, arguments.job, every=every))
    if every:
        texts = found.pop("logs", {})
        _show(texts, {**found, "label": cloud.label()} if arguments.json else None)


def _endpoint(cloud: "Cloud", name: str, as_json: bool) -> None:
    from scripts.azure import endpoints

    endpoint = endpoints.need(cloud, name)
    texts = {
        f"{deployment.name}/{container}": text
        for deployment in endpoint.deployments
        for container, text in endpoints.logs(cloud, name, deployment.name).items()
    }
    _show(texts, {"endpoint": name, "label": cloud.label()} if as_json else None)


def _show(texts: Mapping[str, str], found: Mapping[str, object] | None) -> None:
    """Print logs by name; with `found` as JSON, beside what was found out."""
    if found is not None:
        print(json.dumps({**found, "logs": texts}, ensure_ascii=False, indent=2))
        return
    for name, text in texts.items():
        say(f"--- {name}")
        print(text)


if __name__ == "__main__":
    run_verb(main)

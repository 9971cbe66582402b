"""Fetch a job's results into outputs/, the recipe's newest job by default, and verify them.

Each file has the size and, where storage knows it, the MD5 of what lies there; given again, only
what is missing is fetched. After a command job `latest` points to its run, so `make local-serve`
serves it; Azure OpenAI gives its curves, and never the model.
"""

import argparse
import json
from pathlib import Path

from scripts.azure import routes
from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import OUTPUTS, flag_default, relative, typed


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
    from scripts.azure.client import connect

    cloud = connect()
    route = routes.of_job(cloud, recipe, arguments.job)
    job, folder = route.download(cloud, recipe, arguments.job, OUTPUTS)
    if arguments.json:
        print(json.dumps({"job": job, "run": str(folder), "label": cloud.label()}))
    else:
        print(relative(folder))
    if model := servable(folder):
        say(f"next:   make local-serve MODEL={typed(model)}")


def servable(folder: Path) -> Path | None:
    """What `make local-serve` takes of it: the folder of a run, or of a model; None where none is.

    A run holds its model in `merged`; an MLflow model in `data/model`.
    """
    if (folder / "merged/config.json").is_file():
        return folder
    places = [folder, *sorted(file.parent for file in folder.rglob("config.json"))]
    return next((place for place in places if (place / "config.json").is_file()), None)


if __name__ == "__main__":
    run_verb(main)

"""Upload a recipe's base model to the workspace once, so that no paid machine waits for the hub.

A base that is a folder is uploaded as it is; one on the hub is downloaded to .cache/models first.
`make cloud-train` then takes it from the workspace. Given again, it uploads what is missing.
"""

import argparse
import json
from pathlib import Path

from scripts.azure.given import need_own_images, overrides
from scripts.console import run_verb, say
from scripts.errors import UsageError
from scripts.local_train import DEFAULT_RECIPE, choose, find_recipe
from scripts.settings import CACHE, ROOT, flag_default, relative, typed
from train.recipe import Recipe

HUB_NOTES = ".cache/huggingface/download"
"""Where huggingface_hub notes the commit of each file that it has downloaded."""


def model_folder(recipe: Recipe, runtime: str) -> Path:
    """The base model's folder here; a hub model is downloaded first unless it was before."""
    base = recipe.model.base
    if base == "tiny" or base.startswith("azureml:"):
        raise UsageError(
            f"model.base is {base}, which needs no staging: a job "
            f"{'makes it itself' if base == 'tiny' else 'finds it in the workspace'}."
        )
    if (ROOT / base).is_dir():
        return ROOT / base
    folder = CACHE / "models" / base.replace("/", "--")
    if not (folder / "config.json").is_file():
        say(f"base:   downloading {base} to {relative(folder)}")
        folder = choose(runtime).download(base)
    return folder


def commit(folder: Path) -> str:
    """The hub commit that the folder's model is of; empty where nothing says so."""
    note = folder / HUB_NOTES / "config.json.metadata"
    lines = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
    return lines[0].strip() if lines else ""


def need_revision(recipe: Recipe, folder: Path, found: str) -> None:
    """UsageError where the folder is of another commit than the recipe's."""
    wanted = recipe.model.revision
    if wanted and wanted != found:
        raise UsageError(
            f"{relative(folder)} is {recipe.model.base} at {found or 'an unknown commit'}, and "
            f"model.revision is {wanted}: rm -r {typed(folder)} and run "
            f".venv/bin/python -m train.download {recipe.model.base} "
            f"{typed(CACHE / 'models')} --revision {wanted}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-stage", description="Upload the recipe's base model once."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--runtime",
        default=flag_default("RUNTIME", "auto"),
        help="what downloads a hub model: auto, docker or host",
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    need_own_images(recipe, "a staged base model")
    folder = model_folder(recipe, arguments.runtime)
    revision = commit(folder)
    need_revision(recipe, folder, revision)
    from scripts.azure import assets
    from scripts.azure.client import connect

    cloud = connect()
    asset = assets.base_asset(recipe.model.base, assets.folder(folder), revision)
    say(f"base:   {relative(folder)}, {asset.size / 1e6:.1f} MB, {len(asset.files)} files")
    staged = assets.register(cloud, asset)
    if arguments.json:
        found = {"model": staged, "bytes": asset.size, "revision": revision}
        print(json.dumps({**found, "label": cloud.label()}, indent=2))
    else:
        print(staged)
    say(f"next:   make cloud-train RECIPE={typed(arguments.recipe)}")


if __name__ == "__main__":
    run_verb(main)

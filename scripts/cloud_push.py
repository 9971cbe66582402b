"""Bring the recipe's two images into the workspace's container registry, unless they are there."""

import argparse
import json
from pathlib import Path

from scripts.azure.given import check_push, need_own_images, overrides
from scripts.console import run_verb, say
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import environment, flag_default


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-push",
        description="Push the train and the serve image to the workspace's container registry; "
        "prints each one's reference by digest.",
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument("--role", choices=("train", "serve"), help="only this image")
    parser.add_argument(
        "--push",
        default=flag_default("PUSH", "here"),
        help="here: built by Docker and pushed; build: built by the registry (needs az)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    check_push(arguments.push)
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    need_own_images(recipe, "our images")

    from scripts.azure import images
    from scripts.azure.client import connect

    cloud = connect()
    environ = {**environment(), "PUSH": arguments.push}
    roles: tuple[images.Role, ...] = (arguments.role,) if arguments.role else ("train", "serve")
    refs = {}
    for role in roles:
        device = images.device_for(recipe, cloud, role)
        say(f"device: {device}")
        image = images.local(role, device.value, environ, cloud.workspace.rehearsal)
        refs[role] = images.push(cloud, image)
    if cloud.label():
        say(cloud.label())
    if arguments.json:
        print(json.dumps({"images": refs, "label": cloud.label()}))
    else:
        print("\n".join(refs.values()))


if __name__ == "__main__":
    run_verb(main)

"""Remove all that can be made again: servers, images, virtual environment, caches. Not outputs/."""

import argparse
import shutil
import subprocess

from scripts.console import run_verb, say
from scripts.docker import CODE
from scripts.local_stop import stop_all
from scripts.runtime import missing_docker, probe
from scripts.settings import CACHE, OUTPUTS, ROOT, relative

TOOL_CACHES = (".mypy_cache", ".pytest_cache", ".ruff_cache")


def main() -> None:
    argparse.ArgumentParser(
        prog="make clean", description="Remove what can be made again; outputs/ stays."
    ).parse_args()
    stop_all()
    if not missing_docker():
        filters = [f"--filter=reference=homeport-{name}" for name in CODE]
        _, found = probe(
            ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *filters]
        )
        if images := found.split():
            subprocess.run(["docker", "image", "rm", *images], stdout=subprocess.DEVNULL)
            say(f"removed images {', '.join(images)}")
    # the environment last: this program runs from it; one that HOMEPORT_VENV names is not ours
    for folder in (CACHE, *(ROOT / name for name in TOOL_CACHES), ROOT / ".venv"):
        if folder.is_dir():
            shutil.rmtree(folder)
            say(f"removed {relative(folder)}")
    if OUTPUTS.is_dir() and any(OUTPUTS.iterdir()):
        say("kept outputs/, your results; remove it yourself if you want to: rm -r outputs")


if __name__ == "__main__":
    run_verb(main)

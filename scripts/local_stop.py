"""Stop the servers that this checkout started, whichever runtime they run in."""

import argparse

from scripts.console import run_verb, say
from scripts.docker import Compose
from scripts.host import Host
from scripts.runtime import Choice, missing_docker
from scripts.settings import environment


def runtimes() -> list[Compose | Host]:
    """Every runtime that can hold a server here; Docker only where its engine answers."""
    device = Choice("cpu", "for stopping it makes no difference")
    found: list[Compose | Host] = [Host(environment(), device)]
    if not missing_docker():
        found.append(Compose(environment(), device))
    return found


def stop_all() -> int:
    """Stop them all; how many there were."""
    stopped = 0
    for runtime in runtimes():
        for port in runtime.running():
            if runtime.stop(port):
                say(f"stopped the server on port {port}")
                stopped += 1
    return stopped


def main() -> None:
    argparse.ArgumentParser(
        prog="make local-stop", description="Stop the servers that this checkout started."
    ).parse_args()
    if not stop_all():
        say("no server of this checkout is running")


if __name__ == "__main__":
    run_verb(main)

"""Show the server's log: followed on a terminal, else its end."""

import argparse
import sys

from scripts.console import run_verb
from scripts.errors import UsageError
from scripts.local_stop import runtimes
from scripts.settings import flag_default

TAIL = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make local-logs", description="Show the log of a running server."
    )
    parser.add_argument("--port", default=flag_default("PORT"), help="where more than one runs")
    arguments = parser.parse_args()
    found = [(port, runtime) for runtime in runtimes() for port in runtime.running()]
    if arguments.port:
        found = [(port, runtime) for port, runtime in found if str(port) == arguments.port]
    if not found:
        raise UsageError("no server of this checkout is running there; next: make local-serve")
    if len(found) > 1:
        ports = ", ".join(str(port) for port, _ in found)
        raise UsageError(f"servers run on ports {ports}: make local-logs PORT={found[0][0]}")
    port, runtime = found[0]
    if sys.stdout.isatty():
        runtime.follow(port)
    else:
        print("\n".join(runtime.log(port).splitlines()[-TAIL:]))


if __name__ == "__main__":
    run_verb(main)

"""All benches, one after the other, each in a process of its own: `python -m bench`.

Exits with 0 when all of them ran, whether or not their targets were met: the tables say that.
"""

import subprocess
import sys

BENCHES = ("data", "estimate", "gpu", "serve", "train")
"""Modules of this room; the longest last."""


def main() -> int:
    """Run every bench; returns the first exit code that is not 0."""
    codes = []
    for bench in BENCHES:
        print(f"\nbench-{bench}", flush=True)
        codes.append(subprocess.call([sys.executable, "-m", f"bench.{bench}"]))
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main())

"""Environments for tests that are clients, each made once below .cache/ from a locked file."""

import sys
from pathlib import Path

from tests.tree import ROOT
from trials import environment

LOCK = ROOT / "tests" / "clients.txt"
"""What people use against the server."""
NEWEST_SDK = ROOT / "tests" / "newest_sdk.txt"
"""The newest azure-ai-ml; cloud.txt has the one that we use."""


def borrow() -> None:
    """Let this process import those of clients.txt too, where it has no package of that name."""
    (packages,) = Path(python()).parent.parent.glob("lib/python*/site-packages")
    if str(packages) not in sys.path:
        sys.path.append(str(packages))


def python(packages: Path = LOCK) -> str:
    """The interpreter that has the packages of a hash-locked file; the first call installs them."""
    return str(environment.ensure(packages))

"""One made base model for all tests that need it: making it takes minutes beside other tests."""

from pathlib import Path

from filelock import FileLock

from tests.tree import ROOT
from train import tiny

BASES = ROOT / ".cache"
"""Where `make local-train` keeps it too."""


def made_base() -> Path:
    """Folder of the base model, made by whichever test comes first."""
    BASES.mkdir(exist_ok=True)
    with FileLock(BASES / "tests.lock"):
        return tiny.ensure(BASES)

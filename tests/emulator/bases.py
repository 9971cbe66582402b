"""One made base model for all tests that tune: it takes minutes to make beside other tests."""

from dataclasses import replace

from filelock import FileLock

from emulator.azure import Settings
from tests.tree import ROOT
from train import tiny

BASES = ROOT / ".cache"
"""Where `make local-train` keeps it too."""


def bases(settings: Settings) -> Settings:
    """The settings with a cache that outlives the test and has the base, made by one of them."""
    BASES.mkdir(exist_ok=True)
    with FileLock(BASES / "tests.lock"):
        tiny.ensure(BASES)
    return replace(settings, cache_folder=BASES)

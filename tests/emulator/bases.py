"""One made base model for all tests that tune: it takes a minute to make."""

from dataclasses import replace

from emulator.azure import Settings
from tests.tree import ROOT

BASES = ROOT / ".cache"
"""Where `make local-train` keeps it too."""


def bases(settings: Settings) -> Settings:
    """The settings with a cache that outlives the test."""
    return replace(settings, cache_folder=BASES)

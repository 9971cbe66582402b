"""Local Azures for the tests here: one with everything for the session, a bare one for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.server import Server
from tests import local_azure as local


@pytest.fixture(scope="session")
def local_azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Host mode, with a real Azurite; skipped with the reason where that cannot be had."""
    with local.local_azure(tmp_path_factory.mktemp("azure"), hurry=0.1) as server:
        yield server


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Server]:
    """Without Node, blobs that clients can reach, and jobs; a new one for each test."""
    with local.bare_azure(tmp_path / "azure") as server:
        yield server

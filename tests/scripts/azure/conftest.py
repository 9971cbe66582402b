"""One local Azure for all tests of the session here."""

from collections.abc import Iterator

import pytest

from emulator.server import Server
from tests import local_azure as local


@pytest.fixture(scope="session")
def local_azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Host mode, with a real Azurite; skipped with the reason where that cannot be had."""
    with local.local_azure(tmp_path_factory.mktemp("azure"), hurry=0.1) as server:
        yield server

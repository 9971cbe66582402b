"""Each limit is longer than the one before, up to Azure's own."""

import pytest

from scripts.azure.timeouts import AZURE_MAX_MS, Timeouts
from scripts.errors import UsageError
from serve.settings import AZURE_REQUEST_SECONDS, Settings


def test_the_chain_that_we_use_holds() -> None:
    Timeouts().check()


def test_the_server_here_waits_as_long_as_the_one_in_the_cloud() -> None:
    assert Settings().request_seconds == Timeouts().generation_seconds
    assert AZURE_MAX_MS == AZURE_REQUEST_SECONDS * 1000


@pytest.mark.parametrize(
    ("timeouts", "said"),
    [
        (Timeouts(generation_seconds=150), "generate for 150 s, but Azure gives up after 150 s"),
        (Timeouts(generation_seconds=0), "generate for 0 s"),
        (Timeouts(request_timeout_ms=5000), "gives up after 5 s"),
        (Timeouts(request_timeout_ms=180_001), "no more than 180000"),
        (Timeouts(client_seconds=180), "the client waits 180 s"),
    ],
)
def test_a_chain_that_does_not_hold_is_refused(timeouts: Timeouts, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        timeouts.check()


def test_the_longest_that_azure_takes_is_taken() -> None:
    Timeouts(generation_seconds=179, request_timeout_ms=180_000, client_seconds=181).check()

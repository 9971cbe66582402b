"""Probes wait for the model to be loaded, and no longer than needed to see that it is."""

import pytest

from scripts.azure.probes import LONGEST_DELAY, probes_for

GIB = 2**30


def test_a_small_model_is_asked_soon_and_a_large_one_later() -> None:
    delays = [probes_for(size).initial_delay for size in (0, 10**7, 10**9, 10**10, 42 * GIB)]
    assert delays == sorted(delays)
    assert delays[0] <= 60
    assert 600 <= delays[-1] <= 900


def test_a_delay_has_an_end() -> None:
    assert probes_for(10**13).initial_delay == LONGEST_DELAY


@pytest.mark.parametrize("size", [0, 10**9, 42 * GIB])
def test_readiness_is_asked_early_and_for_as_long_as_liveness(size: int) -> None:
    probes = probes_for(size)
    liveness, readiness = probes.liveness(), probes.readiness()
    assert readiness["initial_delay"] == readiness["period"] <= 10

    def patience(probe: dict[str, int]) -> int:
        return probe["initial_delay"] + probe["period"] * probe["failure_threshold"]

    assert patience(readiness) >= patience(liveness)


def test_a_probe_waits_longer_than_the_server_takes_to_answer() -> None:
    assert 2 < probes_for(0).timeout <= probes_for(0).period

"""What a killed verb is held against; the kills themselves are in tests/e2e/test_trials.py."""

from dataclasses import replace
from typing import Any

import pytest

from scripts import rehearse_kills
from scripts.rehearse_kills import Kill, figures

GOOD = Kill(
    verb="cloud-train",
    point="after 1.0 of 2.0 s",
    stood="job Running",
    said="has done this already",
    code=0,
    jobs=1,
    endpoints=0,
    different=[],
    orphans=0,
)


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({"code": 6}, "ended well when given again"),
        ({"different": ["+jobs/NAME Running"]}, "same state as undisturbed"),
        ({"jobs": 2}, "most jobs of one recipe"),
        ({"endpoints": 2}, "most endpoints of one recipe"),
        ({"orphans": 1}, "servers without a deployment"),
    ],
)
def test_one_thing_wrong_misses_its_row(fields: dict[str, Any], row: str) -> None:
    bad = replace(GOOD, **fields)
    assert GOOD.holds
    assert not bad.holds
    missed = [one["name"] for one in figures([GOOD, bad], [], 1) if one["met"] is False]
    assert missed == [row]


def test_what_bills_after_the_end_is_missed_too() -> None:
    missed = [one["name"] for one in figures([GOOD], ["an endpoint"], 1) if one["met"] is False]
    assert "things that bill after cloud-down" in missed


def test_two_states_are_the_same_but_for_names_and_their_hashes() -> None:
    def row(name: str, state: str = "Completed") -> dict[str, Any]:
        arm_id = f"/subscriptions/s/workspaces/w/jobs/{name}-0123456789"
        return {"id": arm_id, "state": state, "traffic": None, "sha256": ""}

    one = rehearse_kills._row(row("kill-no-1-x"), "kill-no-1-x")
    assert one == rehearse_kills._row(row("kill-no-2-x"), "kill-no-2-x")
    other = rehearse_kills._row(row("kill-no-2-x", "Failed"), "kill-no-2-x")
    assert rehearse_kills._difference([one], [other]) == [f"-{one}", f"+{other}"]


@pytest.mark.parametrize(
    ("place", "state", "bills"),
    [
        ("workspaces/w/jobs/one", "Completed", False),
        ("workspaces/w/jobs/one", "Running", True),
        ("workspaces/w/onlineEndpoints/one", "Succeeded", True),
        ("workspaces/w/models/one/versions/1", "", False),
        ("accounts/a/jobs/ftjob-1", "succeeded", False),
        ("accounts/a/jobs/ftjob-1", "queued", True),
        ("accounts/a/deployments/one", "Succeeded", True),
        ("accounts/a/files/file-1", "processed", False),
    ],
)
def test_what_bills_is_known_in_azure_ml_and_in_azure_openai(
    place: str, state: str, bills: bool
) -> None:
    row = {"id": f"/subscriptions/s/{place}", "state": state, "traffic": {}, "sha256": ""}
    assert bool(rehearse_kills._billing({"resources": [row], "serving": []})) is bills

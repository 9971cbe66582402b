from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scripts.azure.endpoints import Deployment, Endpoint
from scripts.azure.splits import before, find_marked, mark, new_name, splits, surplus, without
from scripts.azure.tags import MARK, PREVIOUS

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def deployment(name: str, traffic: int = 0, *, minutes: int = 0, **more: Any) -> Deployment:
    return Deployment(
        **{
            "name": name,
            "endpoint": "geo",
            "state": "Succeeded",
            "model": "geo:1",
            "instance_type": "Standard_DS3_v2",
            "instances": 1,
            "traffic": traffic,
            "tags": {"homeport": "1", MARK: name.partition("-")[2]},
            "created": NOON + timedelta(minutes=minutes),
            **more,
        }
    )


def endpoint(*deployments: Deployment, **tags: str) -> Endpoint:
    return Endpoint(
        name="geo",
        state="Succeeded",
        uri="https://geo/score",
        tags={"homeport": "1", **tags},
        created=NOON,
        deployments=deployments,
    )


@pytest.mark.parametrize(
    ("current", "steps", "expected"),
    [
        ({}, [10, 100], [{"new": 100}]),
        ({"new": 100}, [10, 100], []),
        ({"old": 100}, [10, 100], [{"old": 90, "new": 10}, {"new": 100}]),
        ({"old": 100}, [100], [{"new": 100}]),
        ({"old": 90, "new": 10}, [10, 50, 100], [{"old": 50, "new": 50}, {"new": 100}]),
        ({"old": 95, "new": 5}, [10, 100], [{"old": 90, "new": 10}, {"new": 100}]),
        ({"a": 60, "b": 40}, [50, 100], [{"a": 30, "b": 20, "new": 50}, {"new": 100}]),
        ({"old": 100, "new": 0}, [100], [{"new": 100}]),
    ],
)
def test_traffic_goes_over_step_by_step_from_where_it_stands(
    current: dict[str, int], steps: list[int], expected: list[dict[str, int]]
) -> None:
    assert splits(current, "new", steps) == expected


@pytest.mark.parametrize("shares", [{"a": 1, "b": 1, "c": 1}, {"a": 33, "b": 34, "c": 33}])
@pytest.mark.parametrize("percent", [1, 10, 33, 50, 99, 100])
def test_every_split_sums_to_100(shares: dict[str, int], percent: int) -> None:
    for step in splits(shares, "new", [percent, 100] if percent < 100 else [100]):
        assert sum(step.values()) == 100
        assert all(step.values())


def test_what_one_deployment_leaves_goes_to_the_others_as_they_share() -> None:
    assert without({"a": 60, "b": 30, "new": 10}, "new") == {"a": 67, "b": 33}
    assert without({"new": 100}, "new") == {}


def test_the_first_deployment_is_blue_and_the_next_takes_the_other_colour() -> None:
    assert new_name(None, "12345678") == "blue-12345678"
    assert new_name(endpoint(deployment("blue-1", 100)), "2") == "green-2"
    both = endpoint(deployment("blue-1", 10), deployment("green-2", 90))
    assert new_name(both, "3") == "blue-3"
    assert new_name(endpoint(deployment("foreign", 100)), "3") == "blue-3"


def test_a_mark_is_the_same_for_the_same_parts_and_no_others() -> None:
    parts = {"model": "geo:1", "image": "sha256:1", "machines": ["a", 1]}
    assert mark(**parts) == mark(**dict(reversed(parts.items())))
    assert len({mark(**{**parts, key: "other"}) for key in parts} | {mark(**parts)}) == 4


def test_a_deployment_is_found_by_its_mark_in_whatever_colour_and_state() -> None:
    there = endpoint(deployment("blue-1"), deployment("green-2", state="Failed"))
    found = find_marked(there, "2")
    assert found and found.name == "green-2"
    assert find_marked(there, "3") is None
    assert find_marked(None, "1") is None


def test_surplus_is_ours_without_traffic_and_not_the_wanted_one() -> None:
    there = endpoint(
        deployment("blue-1", 100),
        deployment("green-2"),
        deployment("blue-3"),
        deployment("green-4", state="Deleting"),
        deployment("foreign", tags={}),
    )
    assert [d.name for d in surplus(there, "3")] == ["green-2"]
    assert [d.name for d in surplus(there)] == ["green-2", "blue-3"]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (endpoint(deployment("blue-1", 100)), None),
        (endpoint(deployment("blue-1"), deployment("green-2", 100)), "blue-1"),
        (
            endpoint(deployment("blue-1", 90), deployment("green-2", 10, minutes=5)),
            "blue-1",
        ),
        (
            endpoint(deployment("green-2", 90, minutes=5), deployment("blue-1", 10)),
            "blue-1",
        ),
        (
            endpoint(
                deployment("blue-1"),
                deployment("blue-2", minutes=1),
                deployment("green-3", 100),
                **{PREVIOUS: "blue-1"},
            ),
            "blue-1",
        ),
        (
            endpoint(
                deployment("blue-1"),
                deployment("blue-2", minutes=1),
                deployment("green-3", 100),
                **{PREVIOUS: "gone"},
            ),
            "blue-2",
        ),
        (endpoint(deployment("blue-1", state="Failed"), deployment("green-2", 100)), None),
        (  # gone back to already
            endpoint(
                deployment("blue-1", 100),
                deployment("green-2", minutes=1),
                **{PREVIOUS: "blue-1"},
            ),
            "blue-1",
        ),
    ],
)
def test_a_rollback_goes_to_the_deployment_before(there: Endpoint, expected: str | None) -> None:
    found = before(there)
    assert (found.name if found else None) == expected

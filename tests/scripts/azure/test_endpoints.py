from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from scripts.azure import endpoints
from scripts.azure.endpoints import asset, read
from scripts.azure.retry import Refused
from scripts.errors import CloudError
from tests.scripts.azure.stage import ENDPOINT, Stage, stage


@pytest.mark.parametrize(
    ("arm_id", "name"),
    [
        ("/subscriptions/s/resourceGroups/g/x/workspaces/w/models/geo/versions/3", "geo:3"),
        ("azureml:geo:3", "geo:3"),
        ("", ""),
    ],
)
def test_an_asset_is_called_by_name_and_version(arm_id: str, name: str) -> None:
    assert asset(arm_id) == name


def deployment_json(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "sku": {"name": "Default", "capacity": 2},
        "systemData": {"createdAt": "2026-11-21T13:00:00Z"},
        "tags": {"homeport": "1", "homeport-image": "sha256:1"},
        "properties": {"provisioningState": "Succeeded", "instanceType": "Standard_DS3_v2", **more},
    }


def test_an_endpoint_is_read_with_the_share_of_each_deployment() -> None:
    found = read(
        {
            "name": "geo",
            "tags": {"homeport": "1", "homeport-expires": "2026-11-22T13:00:00+00:00"},
            "properties": {
                "provisioningState": "Succeeded",
                "scoringUri": "https://geo.eastus.inference.ml.azure.com/score",
                "traffic": {"blue-1": 90, "green-2": 10},
            },
        },
        [deployment_json("blue-1"), deployment_json("green-2"), deployment_json("blue-3")],
    )
    assert found.traffic == {"blue-1": 90, "green-2": 10}
    assert found.expires == datetime(2026, 11, 22, 13, tzinfo=UTC)
    assert found.deployments[0].instances == 2
    assert found.deployments[0].image == "sha256:1"
    assert found.ours


def test_an_endpoint_of_others_without_tags_is_not_ours() -> None:
    found = read({"name": "x", "tags": None, "properties": {"traffic": None}}, [])
    assert not found.ours
    assert found.expires is None


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with stage(tmp_path_factory.mktemp("stage")) as staged:
        yield staged


def make(azure: Stage, name: str = ENDPOINT) -> None:
    from scripts.azure import specs

    endpoints.create(azure.cloud, specs.endpoint(name, tags={"homeport-owner": "me"}))


@pytest.mark.slow
def test_an_endpoint_is_made_found_and_deleted_and_deleting_twice_is_fine(azure: Stage) -> None:
    assert azure.endpoint() is None
    make(azure)
    found = azure.endpoint()
    assert found
    assert (found.state, found.ours, found.tags["homeport-owner"]) == ("Succeeded", True, "me")
    assert [e.name for e in endpoints.every(azure.cloud)] == [ENDPOINT]
    assert len(endpoints.key(azure.cloud, ENDPOINT)) > 20
    endpoints.delete(azure.cloud, ENDPOINT)
    endpoints.delete(azure.cloud, ENDPOINT)
    assert azure.endpoint() is None


@pytest.mark.slow
def test_tags_of_others_stay_when_the_traffic_moves(azure: Stage) -> None:
    make(azure)
    endpoints.set_traffic(azure.cloud, ENDPOINT, {}, {"mine": "1"})
    endpoints.set_traffic(azure.cloud, ENDPOINT, {}, {"mine": "2", "other": "3"})
    found = azure.endpoint()
    assert found
    assert found.tags.items() >= {"mine": "2", "other": "3", "homeport-owner": "me"}.items()
    azure.clear()


@pytest.mark.slow
def test_nothing_of_the_sdk_reaches_stdout(
    azure: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    make(azure)
    endpoints.delete(azure.cloud, ENDPOINT)
    assert capsys.readouterr().out == ""


class Done:
    """A poller at its end."""

    def result(self) -> None:
        pass


def busy(times: int) -> Callable[[], Done]:
    """An operation that is refused with 409 so often before it begins."""
    from azure.core.exceptions import HttpResponseError

    left = iter(range(times))

    def begin() -> Done:
        if next(left, None) is None:
            return Done()
        conflict = HttpResponseError("An operation is already in progress.")
        conflict.status_code = 409
        raise conflict

    return begin


def test_the_end_of_another_operation_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(endpoints, "POLL_SECONDS", 0.0)
    endpoints.settle("delete endpoint geo", busy(3))
    assert capsys.readouterr().err == (
        "waiting to delete endpoint geo: another operation is under way\n"
    )


def test_an_endpoint_that_stays_busy_is_given_up_with_the_next_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoints, "BUSY_SECONDS", -1.0)
    with pytest.raises(CloudError, match=r"still under way.*; next: make cloud-status"):
        endpoints.settle("delete endpoint geo", busy(2))


@pytest.mark.slow
def test_a_failed_operation_is_told_in_the_services_words(azure: Stage) -> None:
    from emulator.faults import Fault
    from scripts.azure import specs

    cause = "OutOfCapacity: no such machine is free in eastus"
    azure.faults.add(Fault(kind="failed_provisioning", path=ENDPOINT, cause=cause))
    with pytest.raises(Refused, match="no such machine is free"):
        endpoints.create(azure.cloud, specs.endpoint(ENDPOINT))
    azure.clear()


@pytest.mark.slow
def test_the_log_of_a_deployment_that_is_not_there_says_why(azure: Stage) -> None:
    make(azure)
    found = endpoints.logs(azure.cloud, ENDPOINT, "blue-1")
    assert set(found) == {"storage-initializer", "inference-server"}
    assert all("no log" in text for text in found.values())
    azure.clear()

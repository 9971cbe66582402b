"""Online endpoints: the resource, names, traffic, keys and tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.http import Refusal
from tests.emulator.small_azure import SmallAzure, refused


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[SmallAzure]:
    small = SmallAzure(tmp_path)
    yield small
    small.close()
    assert small.journal.report()["problems"] == []


def two_deployments(azure: SmallAzure) -> None:
    """An endpoint with deployments blue and green, whose containers nobody starts."""
    azure.endpoint()
    for name in ("blue", "green"):
        azure.store.put(
            f"{azure.workspace}/onlineEndpoints/geo/deployments/{name}",
            {"properties": {"provisioningState": "Succeeded"}},
        )


def test_a_new_endpoint_is_answered_as_the_service_does(azure: SmallAzure) -> None:
    reply = azure.endpoint()
    assert reply.status == 201
    assert "mfeOperationsStatus/" in reply.headers["Azure-AsyncOperation"]
    assert isinstance(reply.body, dict)
    assert reply.body["properties"] | {"swaggerUri": ""} == {
        "authMode": "Key",
        "mirrorTraffic": {},
        "properties": {},
        "provisioningState": "Creating",
        "publicNetworkAccess": "Enabled",
        "scoringUri": "https://geo.eastus.inference.ml.azure.com/score",
        "swaggerUri": "",
        "traffic": {},
    }
    assert reply.body["systemData"]["lastModifiedAt"]
    assert azure.properties("onlineEndpoints/geo")["provisioningState"] == "Succeeded"


def test_an_endpoints_identity_stays_the_same(azure: SmallAzure) -> None:
    first, second = azure.endpoint().body, azure.endpoint().body
    other = azure.endpoint("other").body
    assert isinstance(first, dict) and isinstance(second, dict) and isinstance(other, dict)
    assert first["identity"] == second["identity"]
    assert first["identity"]["principalId"] != other["identity"]["principalId"]


def test_an_endpoint_that_is_there_is_updated(azure: SmallAzure) -> None:
    azure.endpoint()
    assert azure.endpoint(description="new").status == 200
    assert azure.properties("onlineEndpoints/geo")["description"] == "new"


def test_endpoints_are_listed_without_their_deployments(azure: SmallAzure) -> None:
    two_deployments(azure)
    azure.endpoint("other")
    listed = azure.call("GET", "onlineEndpoints").body
    assert isinstance(listed, dict)
    assert [endpoint["name"] for endpoint in listed["value"]] == ["geo", "other"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ab", "between 3 and 32 characters"),
        ("a" * 33, "between 3 and 32 characters"),
        ("1abc", "must start with a letter"),
        ("abc-", "end with a letter or digit"),
        ("ab_c", "only letters, digits and '-'"),
    ],
)
def test_a_name_against_azures_rules_is_refused(azure: SmallAzure, name: str, why: str) -> None:
    with pytest.raises(Refusal) as refusal:
        azure.ask_raw("PUT", f"onlineEndpoints/{name}", {"location": "eastus"})
    assert refusal.value.status == 400
    assert why in refused(refusal.value)


def test_an_endpoint_that_is_not_there_is_404(azure: SmallAzure) -> None:
    with pytest.raises(Refusal) as refusal:
        azure.call("GET", "onlineEndpoints/none")
    assert refusal.value.status == 404


@pytest.mark.parametrize(
    ("traffic", "why"),
    [
        ({"traffic": {"red": 100}}, "'red' in the traffic does not exist"),
        ({"traffic": {"blue": 60}}, "must sum to 0 or 100; they sum to 60"),
        ({"traffic": {"blue": 200, "green": -100}}, "must be from 0 to 100"),
        ({"traffic": {"blue": 100}, "mirrorTraffic": {"blue": 10}}, "not both"),
        ({"mirrorTraffic": {"red": 10}}, "'red' in the mirrorTraffic does not exist"),
        ({"mirrorTraffic": {"blue": 10, "green": 10}}, "to one deployment only"),
        ({"mirrorTraffic": {"green": 60}}, "at most 50 percent"),
    ],
)
def test_traffic_that_cannot_be_routed_is_refused(
    azure: SmallAzure, traffic: dict[str, Any], why: str
) -> None:
    two_deployments(azure)
    with pytest.raises(Refusal) as refusal:
        azure.endpoint(**traffic)
    assert refusal.value.status == 400
    assert "One or more validation errors occurred." in refused(refusal.value)
    assert why in refused(refusal.value)
    assert azure.properties("onlineEndpoints/geo")["traffic"] == {}


@pytest.mark.parametrize("traffic", [{}, {"blue": 0}, {"blue": 100}, {"BLUE": 30, "green": 70}])
def test_traffic_that_can_be_routed_is_kept(azure: SmallAzure, traffic: dict[str, int]) -> None:
    two_deployments(azure)
    azure.endpoint(traffic=traffic)
    assert azure.properties("onlineEndpoints/geo")["traffic"] == traffic


def test_keys_are_two_and_stand_in_no_resource(azure: SmallAzure) -> None:
    azure.endpoint()
    keys = azure.call("POST", "onlineEndpoints/geo/listKeys").body
    assert isinstance(keys, dict)
    assert len(set(keys.values())) == 2
    assert keys["primaryKey"] not in str(azure.call("GET", "onlineEndpoints/geo").body)


def test_keys_that_are_given_are_kept(azure: SmallAzure) -> None:
    azure.endpoint(keys={"primaryKey": "one", "secondaryKey": "two"})
    keys = azure.call("POST", "onlineEndpoints/geo/listKeys").body
    assert keys == {"primaryKey": "one", "secondaryKey": "two"}
    assert "keys" not in azure.properties("onlineEndpoints/geo")


def test_a_key_is_replaced_by_a_new_one_or_the_given_one(azure: SmallAzure) -> None:
    azure.endpoint()
    before = azure.key()
    body = {"keyType": "Primary"}
    azure.finish(azure.call("POST", "onlineEndpoints/geo/regenerateKeys", body))
    assert azure.key() != before
    azure.finish(
        azure.call("POST", "onlineEndpoints/geo/regenerateKeys", {**body, "keyValue": "mine"})
    )
    assert azure.key() == "mine"


@pytest.mark.parametrize(("mode", "route"), [("AMLToken", "listKeys"), ("Key", "token")])
def test_credentials_of_another_mode_are_refused(azure: SmallAzure, mode: str, route: str) -> None:
    azure.endpoint(authMode=mode)
    with pytest.raises(Refusal) as refusal:
        azure.call("POST", f"onlineEndpoints/geo/{route}")
    assert refusal.value.status == 400


def test_a_provisioning_that_fails_ends_with_its_cause(azure: SmallAzure) -> None:
    azure.faults.add(Fault(kind="failed_provisioning", cause="SubscriptionNotRegistered: No."))
    status = azure.finish(azure.endpoint_put())
    assert status["status"] == "Failed"
    assert status["error"]["code"] == "SubscriptionNotRegistered"
    assert azure.properties("onlineEndpoints/geo")["provisioningState"] == "Failed"


def test_an_endpoint_that_is_being_changed_takes_no_other_change(azure: SmallAzure) -> None:
    azure.faults.add(Fault(kind="slow", seconds=0.3))
    first = azure.endpoint_put()
    with pytest.raises(Refusal) as refusal:
        azure.endpoint_put()
    assert refusal.value.status == 409
    azure.finish(first)


def test_deleting_an_endpoint_deletes_all_and_twice_is_fine(azure: SmallAzure) -> None:
    two_deployments(azure)
    before = azure.key()
    reply = azure.call("DELETE", "onlineEndpoints/geo")
    assert reply.status == 202
    assert azure.finish(reply)["status"] == "Succeeded"
    assert azure.call("DELETE", "onlineEndpoints/geo").status == 204
    listed = azure.call("GET", "onlineEndpoints").body
    assert listed == {"value": []}
    azure.endpoint()
    assert azure.key() != before
    assert azure.call("GET", "onlineEndpoints/geo/deployments").body == {"value": []}

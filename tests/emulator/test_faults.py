"""Faults on demand, in the words and status codes of the cloud."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from emulator.faults import Fault, Faults
from emulator.server import Server
from tests.local_azure import session

DATASTORE = {
    "properties": {
        "datastoreType": "AzureBlob",
        "accountName": "homeportrehearsal",
        "containerName": "mine",
        "credentials": {"credentialsType": "None"},
    }
}


def url(server: Server, below: str = "") -> str:
    workspace = server.azure.settings.workspace_id
    return f"https://management.azure.com{workspace}{below}?api-version=2024-10-01-preview"


def test_a_fault_happens_as_often_as_it_was_asked_for() -> None:
    faults = Faults()
    faults.add(Fault(kind="quota", path="/jobs/", times=2))
    assert faults.take("preempt", path="/jobs/a") is None
    assert faults.take("quota", path="/onlineEndpoints/a") is None
    assert [bool(faults.take("quota", path="/JOBS/a")) for _ in range(3)] == [True, True, False]


def test_methods_are_matched_wholly() -> None:
    faults = Faults()
    faults.add(Fault(kind="status", method="PUT|PATCH"))
    assert faults.take("status", method="GET", path="/x") is None
    assert faults.take("status", method="PATCH", path="/x")


def test_a_status_comes_once_with_how_long_to_wait(bare: Server) -> None:
    client = session(bare)
    control = requests.post(
        f"{bare.proxy_url}/faults",
        json={"kind": "status", "status": 429, "retry_after": 2.5, "path": "workspaces/homeport$"},
        timeout=5,
    )
    assert control.status_code == 204
    refused = client.get(url(bare))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
    assert refused.json()["error"]["code"] == "TooManyRequests"
    assert client.get(url(bare)).status_code == 200
    assert bare.report()["problems"] == []


@pytest.mark.parametrize(("kind", "done"), [("reset", False), ("lost_reply", True)])
def test_a_connection_breaks_before_or_after_the_work(bare: Server, kind: Any, done: bool) -> None:
    bare.azure.faults.add(Fault(kind=kind, method="PUT"))
    client = session(bare)
    with pytest.raises(requests.ConnectionError):
        client.put(url(bare, "/datastores/mine"), json=DATASTORE)
    assert (client.get(url(bare, "/datastores/mine")).status_code == 200) is done
    assert bare.report()["problems"] == []


def test_a_connection_to_storage_can_break_too(bare: Server) -> None:
    bare.azure.faults.add(Fault(kind="reset", path="blob.core.windows.net"))
    with pytest.raises(requests.ConnectionError):
        session(bare).get("https://homeportrehearsal.blob.core.windows.net/azureml/x")
    assert bare.report()["problems"] == []  # it was not even tried to reach it


def test_faults_can_be_taken_back(bare: Server) -> None:
    bare.azure.faults.add(Fault(kind="status", times=9))
    assert requests.delete(f"{bare.proxy_url}/faults", timeout=5).status_code == 204
    assert session(bare).get(url(bare)).status_code == 200


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "fire"}, "`kind` is one of"),
        ({"kind": "status", "when": 3}, "A fault has the fields"),
        ({"kind": "status", "times": "often"}, "`times` cannot be 'often'"),
        ({"kind": "status", "path": "("}, "`path` is no pattern"),
        ([], "A fault has the fields"),
    ],
)
def test_a_fault_that_nobody_knows_is_refused(bare: Server, fault: Any, words: str) -> None:
    answer = requests.post(f"{bare.proxy_url}/faults", json=fault, timeout=5)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_the_first_occasions_may_pass() -> None:
    faults = Faults()
    faults.add(Fault(kind="reset", skip=2))
    assert [bool(faults.take("reset", path=path)) for path in "abcd"] == [False, False, True, False]


def test_each_request_can_be_spoiled_once() -> None:
    faults = Faults()
    faults.add(Fault(kind="reset", path="^/x", once_each=True))
    asked = [("GET", "/x/1"), ("GET", "/x/1"), ("PUT", "/x/1"), ("GET", "/x/2"), ("GET", "/y")]
    struck = [bool(faults.take("reset", method=method, path=path)) for method, path in asked]
    assert struck == [True, False, True, True, False]
    assert faults.report()["struck"] == ["reset: GET /x/1", "reset: PUT /x/1", "reset: GET /x/2"]
    faults.clear()
    assert faults.report() == {"struck": [], "held": 0, "left": 0}


@pytest.mark.parametrize(("kind", "done"), [("hold", False), ("hold_reply", True)])
def test_a_request_is_held_before_or_after_the_work_until_faults_are_cleared(
    bare: Server, kind: Any, done: bool
) -> None:
    client = session(bare)
    requests.post(f"{bare.proxy_url}/faults", json={"kind": kind, "method": "PUT"}, timeout=5)
    with ThreadPoolExecutor() as pool:
        put = pool.submit(client.put, url(bare, "/datastores/mine"), json=DATASTORE)
        control = f"{bare.proxy_url}/faults"
        while not (told := requests.get(control, timeout=5).json())["held"]:
            assert not put.done()
        assert told["struck"][0].startswith(f"{kind}: PUT /subscriptions/")
        assert (session(bare).get(url(bare, "/datastores/mine")).status_code == 200) is done
        requests.delete(control, timeout=5)
        with pytest.raises(requests.ConnectionError):
            put.result(timeout=5)
    assert requests.get(control, timeout=5).json()["held"] == 0
    assert bare.report()["problems"] == []


def test_a_refusal_is_in_the_words_of_the_service(bare: Server) -> None:
    bare.azure.faults.add(Fault(kind="status", status=403))
    refused = session(bare).get(url(bare)).json()["error"]
    assert refused["code"] == "AuthorizationFailed"
    assert "does not have authorization to perform action" in refused["message"]

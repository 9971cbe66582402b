"""Long-running operations, as clients poll them."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault, Faults
from emulator.http import Refusal, Request
from emulator.journal import Journal
from emulator.operations import Operations
from emulator.store import Store

TARGET = "/subscriptions/s/resourceGroups/g/providers/P/endpoints/e"


class Desk:
    """Operations with all that they need, and a resource that is being created."""

    def __init__(self, folder: Path) -> None:
        self.store, self.journal, self.faults = Store(), Journal(folder), Faults()
        self.store.put(TARGET, {"properties": {"provisioningState": "Creating"}})
        self.operations = Operations(
            self.store, self.journal, self.faults, "https://management.azure.com", "/locations/l"
        )

    def start(self, work: Any) -> str:
        """Its name, out of the header by which clients find it."""
        headers = self.operations.start("2024-01-01", work, target=TARGET)
        assert headers["Retry-After"] == "1"
        return headers["Azure-AsyncOperation"].split("/")[-1].partition("?")[0]

    def status(self, name: str) -> dict[str, Any]:
        request = Request(method="GET", host="management.azure.com", path=f"/x/{name}")
        body = self.operations.status(request, {"operation": name}).body
        assert isinstance(body, dict)
        return body

    def result(self, name: str) -> int:
        request = Request(method="GET", host="management.azure.com", path=f"/x/{name}")
        return self.operations.result(request, {"operation": name}).status

    def end(self, name: str) -> dict[str, Any]:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            status = self.status(name)
            if status["status"] != "InProgress":
                return status
            time.sleep(0.01)
        raise AssertionError("the operation did not end")

    def state(self) -> str:
        resource = self.store.get(TARGET)
        assert resource
        return str(resource["properties"]["provisioningState"])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_it_is_in_progress_until_its_work_is_done(desk: Desk) -> None:
    go_on = threading.Event()
    name = desk.start(go_on.wait)
    assert desk.status(name)["status"] == "InProgress"
    assert (desk.result(name), desk.state()) == (202, "Creating")
    go_on.set()
    assert desk.end(name)["status"] == "Succeeded"
    assert (desk.result(name), desk.state()) == (200, "Succeeded")


def test_a_refusal_is_the_error_that_clients_read(desk: Desk) -> None:
    def work() -> None:
        raise Refusal(400, "OutOfQuota", "Not enough cores.")

    name = desk.start(work)
    ended = desk.end(name)
    assert (ended["status"], ended["error"]["code"]) == ("Failed", "OutOfQuota")
    assert desk.state() == "Failed"
    assert desk.journal.report()["problems"] == []
    with pytest.raises(Refusal, match="Not enough cores"):
        desk.result(name)


def test_a_bug_fails_the_operation_and_makes_the_session_red(desk: Desk) -> None:
    def work() -> None:
        raise ZeroDivisionError("ours")

    assert desk.end(desk.start(work))["error"]["code"] == "InternalServerError"
    assert "ZeroDivisionError" in desk.journal.report()["problems"][0]


def test_a_target_that_was_deleted_meanwhile_is_no_bug(desk: Desk) -> None:
    assert desk.end(desk.start(lambda: desk.store.delete(TARGET)))["status"] == "Succeeded"
    assert desk.journal.report()["problems"] == []


def test_a_slow_operation_takes_as_much_longer(desk: Desk) -> None:
    desk.faults.add(Fault(kind="slow", path="endpoints", seconds=0.3))
    begin = time.monotonic()
    desk.end(desk.start(lambda: None))
    assert time.monotonic() - begin >= 0.3


def test_an_unknown_operation_is_not_found(desk: Desk) -> None:
    with pytest.raises(Refusal) as refused:
        desk.status("oeidp:none")
    assert refused.value.status == 404

"""Long-running operations: work in a thread, and the status that clients poll.

The headers are the service's own: Azure-AsyncOperation names the status, Location the result
(202 until it is there), and Retry-After keeps azure-core from waiting 30 s between two looks.
"""

import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emulator.faults import Faults
from emulator.http import ARM, Refusal, Reply, Request, Route
from emulator.journal import Journal
from emulator.store import Store, now

if TYPE_CHECKING:
    from emulator.azure import Azure

POLL_SECONDS = 1


@dataclass(slots=True)
class Operation:
    started: str
    done: threading.Event
    error: Refusal | None = None


class Operations:
    """Starts operations and answers for their state."""

    def __init__(
        self, store: Store, journal: Journal, faults: Faults, host: str, prefix: str
    ) -> None:
        """`host` is `https://management.azure.com`, `prefix` the path of its operations."""
        self._store = store
        self._journal = journal
        self._faults = faults
        self._base = f"{host}{prefix}"
        self._operations: dict[str, Operation] = {}

    def start(
        self, api_version: str, work: Callable[[], None], *, target: str = ""
    ) -> dict[str, str]:
        """Run `work` in the background; the headers that name its status.

        `target` is the ARM id of a resource whose provisioningState ends as Succeeded, or as Failed
        where `work` raises Refusal (whose error the status then tells) or anything else (a bug,
        which the journal keeps).
        """
        name = f"oeidp:{uuid.uuid4()}"
        operation = Operation(now(), threading.Event())
        self._operations[name] = operation

        def run() -> None:
            try:
                if fault := self._faults.take("slow", path=target):
                    time.sleep(fault.seconds)
                work()
                self._settle(target, "Succeeded")
            except Refusal as refusal:
                operation.error = refusal
                self._settle(target, "Failed")
            except Exception as bug:
                self._journal.problem(f"operation on {target}: {traceback.format_exc()}")
                operation.error = Refusal(500, "InternalServerError", repr(bug))
                self._settle(target, "Failed")
            finally:
                operation.done.set()

        threading.Thread(target=run, name=name, daemon=True).start()
        query = f"?api-version={api_version}"
        return {
            "Azure-AsyncOperation": f"{self._base}/mfeOperationsStatus/{name}{query}",
            "Location": f"{self._base}/mfeOperationResults/{name}{query}",
            "x-ms-async-operation-timeout": "PT30M",
            "Retry-After": str(POLL_SECONDS),
        }

    def _settle(self, target: str, state: str) -> None:
        if not target:
            return
        try:
            with self._store.changed(target) as resource:
                resource["properties"]["provisioningState"] = state
        except KeyError:
            return  # it was deleted meanwhile

    def status(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET mfeOperationsStatus: InProgress, Succeeded, or Failed with its error."""
        operation = self._find(groups["operation"])
        body: dict[str, Any] = {
            "id": request.path,
            "name": groups["operation"],
            "startTime": operation.started,
        }
        if not operation.done.is_set():
            return Reply(200, {**body, "status": "InProgress"}, {"Retry-After": str(POLL_SECONDS)})
        if operation.error:
            return Reply(
                200,
                {**body, "status": "Failed", "endTime": now(), **operation.error.body()},
            )
        return Reply(200, {**body, "status": "Succeeded", "endTime": now(), "percentComplete": 100})

    def result(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET mfeOperationResults: 202 until it is done."""
        operation = self._find(groups["operation"])
        if not operation.done.is_set():
            location = f"{self._base}/mfeOperationResults/{groups['operation']}"
            headers = {
                "Retry-After": str(POLL_SECONDS),
                "Location": f"{location}?api-version={request.api_version}",
            }
            return Reply(202, None, headers)
        if operation.error:
            raise operation.error
        return Reply(200, None)

    def _find(self, name: str) -> Operation:
        if name not in self._operations:
            raise Refusal(404, "NotFound", f"There is no operation {name}.")
        return self._operations[name]


def routes(azure: "Azure") -> list[Route]:
    base = r"/subscriptions/[^/]+/providers/Microsoft\.MachineLearningServices/locations/[^/]+"
    operation = r"(?P<operation>[^/]+)"
    return [
        Route("GET", ARM, rf"{base}/mfeOperationsStatus/{operation}", azure.operations.status),
        Route("GET", ARM, rf"{base}/mfeOperationResults/{operation}", azure.operations.result),
    ]

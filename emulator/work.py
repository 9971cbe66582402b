"""What jobs of every kind share: a thread, a record of what they are up to, a folder of their own.

class Pipeline(Work):
    def _work(self) -> None: …          raises Ended where it does not complete
"""

import re
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from emulator.azure import Azure
from emulator.execution import Ended
from emulator.outputs import DataError
from emulator.parents import Log, Record
from emulator.store import Resource
from emulator.tuning import TuningCanceled, TuningError


class Work(ABC):
    """One job."""

    def __init__(self, azure: Azure, job_id: str) -> None:
        resource = azure.store.get(job_id)
        if resource is None:
            raise KeyError(job_id)
        self._azure = azure
        self._properties: Resource = resource["properties"]
        self._record = Record(azure, job_id)
        name = str(resource["name"])
        self._folder = azure.settings.folder / "jobs" / re.sub(r"[^\w.-]", "_", name)
        self.thread = threading.Thread(target=self._run, name=f"job-{name}", daemon=True)

    def cancel(self) -> None:
        """Ask for its end; one that has just ended stays as it is."""
        self._record.cancel()

    def _run(self) -> None:
        def work() -> None:
            try:
                self._work()
            finally:
                shutil.rmtree(self._folder, ignore_errors=True)

        self._record.end(work)

    @abstractmethod
    def _work(self) -> None:
        """Carry it out; Ended where it does not complete."""


@contextmanager
def tuning_told(log: Log, what: str) -> Iterator[None]:
    """What stops a training of the service's own, as the end of its job; `what` is what failed."""
    try:
        yield
    except DataError as error:
        raise Ended("Failed", "DataAccessError", str(error)) from error
    except TuningCanceled:
        raise Ended("Canceled") from None
    except TuningError as error:
        log.line(str(error))
        raise Ended("Failed", "ExecutionFailed", f"{what} failed: {error}") from error

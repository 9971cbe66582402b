"""The processes of a job on one node: started, watched to their end, their logs and outputs kept.

    execution.run()      returns when all have ended well; raises Ended or Preempted otherwise

Whatever happens, no process is left, and the logs are in storage.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from emulator.azure import Azure
from emulator.commands import Process, processes, seconds_of
from emulator.faults import Fault
from emulator.nodes import NodeError, Program, Running
from emulator.outputs import Output
from emulator.store import now

CANCEL_SECONDS = 30.0
"""From SIGTERM to SIGKILL."""
LOOK_SECONDS = 0.1
SYNC_SECONDS = 1.0
"""Between two looks at logs and mounted outputs."""
ENDED = ("Completed", "Failed", "Canceled")


def run_id(job_id: str) -> str:
    """Where the store keeps the run record of a job."""
    return f"{job_id}/history/run"


class Ended(Exception):
    """The job is over before its time: status, and the error's code and sentence."""

    def __init__(self, status: str, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Preempted(Exception):
    """The node was taken away."""


@dataclass(slots=True, kw_only=True)
class Live:
    """What one job keeps from node to node."""

    azure: Azure
    job_id: str
    properties: Mapping[str, Any]
    note: Callable[..., None]
    """Keeps a status of the job."""
    canceled: threading.Event = field(default_factory=threading.Event)
    logs: dict[str, bytes] = field(default_factory=dict)
    """What earlier nodes have written, by the log's name; the next node's log follows it."""
    deadline: float | None = None
    """When its limit of time ends, by the monotonic clock."""

    @property
    def artifacts(self) -> str:
        """Where its logs lie in the container of artifacts."""
        return f"ExperimentRun/dcid.{self.job_id.rpartition('/')[2]}"


class Execution:
    """The processes of `live` on one node; `program` is what each of them runs."""

    def __init__(self, live: Live, program: Program, outputs: list[Output]) -> None:
        self._live = live
        self._program = program
        self._outputs = outputs
        self._running: dict[str, Running] = {}
        """By the name of the log."""
        self._kept: dict[str, int] = {}
        """Bytes of each log that are in storage."""

    def run(self) -> None:
        try:
            started = time.monotonic()
            for process in processes(self._live.properties, _free_port()):
                try:
                    self._running[process.log] = self._start(process)
                except NodeError:
                    self._look_for_failure()  # a process before it may be the reason
                    raise
            self._live.note("Running", startTimeUtc=now())
            self._watch(started)
            self._live.note("Finalizing")
            for output in self._outputs:
                output.look(final=True)
        except NodeError as error:
            raise Ended("Failed", "ContainerStartFailure", str(error)) from error
        except Ended:
            for output in self._outputs:
                if output.mounted:
                    output.look(final=True)
            raise
        finally:
            for running in self._running.values():
                running.stop(0)
            self._keep_logs()
            for log, running in self._running.items():
                self._live.logs[log] = self._live.logs.get(log, b"") + running.log()
                running.remove()

    def _start(self, process: Process) -> Running:
        base = self._program.name
        return self._live.azure.nodes.start(
            replace(
                self._program,
                name=f"{base}-{process.rank}",
                environment={**self._program.environment, **process.environment},
                beside=f"{base}-0" if process.rank else None,
            )
        )

    def _watch(self, started: float) -> None:
        """Until all processes have ended well; else Ended or Preempted, with all of them gone."""
        live = self._live
        preempt = live.azure.faults.take("preempt", path=live.job_id)
        limit = (live.properties.get("limits") or {}).get("timeout")
        if limit and live.deadline is None:
            live.deadline = started + seconds_of(limit)
        synced = 0.0
        while True:
            clock = time.monotonic()
            if preempt and self._due(preempt, clock - started):
                for running in self._running.values():
                    running.stop(0)
                if preempt.cause:  # what was written until then is on the mount; not half a change
                    self._look_at_mounts(final=True)
                raise Preempted
            if live.canceled.is_set():
                self._stop()
                raise Ended("Canceled")
            if live.deadline is not None and clock >= live.deadline:
                self._stop()
                message = f"The job was cancelled: it ran longer than its limit of {limit}."
                raise Ended("Canceled", "JobExceededMaxRunDuration", message)
            if self._look_for_failure():
                return
            if clock - synced >= SYNC_SECONDS:
                synced = clock
                self._keep_logs()
                self._look_at_mounts()
            live.canceled.wait(LOOK_SECONDS)

    def _due(self, preempt: Fault, seconds: float) -> bool:
        """Whether the node is to be taken away now."""
        if not preempt.cause:
            return seconds >= preempt.seconds
        words = preempt.cause.encode()
        return any(words in running.log() for running in self._running.values())

    def _look_at_mounts(self, *, final: bool = False) -> None:
        for output in self._outputs:
            if output.mounted:
                output.look(final=final)

    def _look_for_failure(self) -> bool:
        """Whether all have ended well; Ended with the service's sentence where one has not."""
        codes = {log: running.exit_code() for log, running in self._running.items()}
        for log, code in codes.items():
            if code:
                self._stop()
                program = str(self._live.properties["command"]).split()[0]
                sentence = (
                    f"Execution failed. User process '{program}' exited with status code {code}. "
                    f"Please check log file '{log}' for error details."
                )
                raise Ended("Failed", "ExecutionFailed", sentence)
        return all(code == 0 for code in codes.values())

    def _stop(self) -> None:
        """SIGTERM to all processes at once, and wait for each."""
        threads = [
            threading.Thread(target=running.stop, args=(CANCEL_SECONDS,))
            for running in self._running.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _keep_logs(self) -> None:
        """Copy the logs that have grown, then let run history name them."""
        azure = self._live.azure
        for name, running in self._running.items():
            text = self._live.logs.get(name, b"") + running.log()
            if self._kept.get(name) == len(text):
                continue
            container = azure.settings.artifact_container
            azure.storage.write(container, f"{self._live.artifacts}/{name}", text)
            self._kept[name] = len(text)
            with suppress(KeyError), azure.store.changed(run_id(self._live.job_id)) as record:
                record["logs"][name] = len(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

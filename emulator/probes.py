"""Liveness and readiness probes of one container, as Kubernetes runs them.

The first probe comes after the initial delay, the next ones every period, as long as the container
runs: an answer of 200 to 399 within the timeout is a success. So many failures on end as the
threshold says are final: the liveness probe ends the container, the readiness probe takes it out of
the traffic until it succeeds again.
"""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emulator import online

MAX_BODY = 10 << 10
"""Bytes of an answer that the kubelet reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """Durations in seconds."""

    path: str
    initial_delay: float
    period: float
    timeout: float
    failures: int
    """Failures on end that count as one."""
    successes: int

    @classmethod
    def of(cls, settings: dict[str, Any], path: str, field: str) -> "ProbeSettings":
        """From the contract's ProbeSettings, completed; Refusal 400 where a value cannot be."""
        probe = cls(
            path=path,
            initial_delay=online.seconds(settings["initialDelay"], f"{field}.initialDelay"),
            period=online.seconds(settings["period"], f"{field}.period"),
            timeout=online.seconds(settings["timeout"], f"{field}.timeout"),
            failures=settings["failureThreshold"],
            successes=settings["successThreshold"],
        )
        if min(probe.period, probe.timeout) <= 0 or min(probe.failures, probe.successes) < 1:
            raise online.invalid("Period, timeout and thresholds must be greater than 0.", field)
        return probe


class Probe:
    """Asks one route of a container until it is stopped."""

    def __init__(
        self,
        name: str,
        settings: ProbeSettings,
        address: tuple[str, int],
        *,
        tell: Callable[[str, str], None],
        fail: Callable[[], None],
    ) -> None:
        """`name` is Liveness or Readiness; `tell` takes an event's name and its sentence; `fail` is
        called when it has failed as often on end as the threshold says."""
        self.passing = False
        self.failed = False
        """It is not passing because of as many failures on end as the threshold says."""
        self.reason = ""
        """What the last failure was."""
        self._name = name
        self._settings = settings
        self._address = address
        self._tell = tell
        self._fail = fail
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=f"{name} probe", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        good = bad = 0
        wait = self._settings.initial_delay
        while not self._stopped.wait(wait):
            wait = self._settings.period
            problem = self._ask()
            if self._stopped.is_set():
                return
            good, bad = (0, bad + 1) if problem else (good + 1, 0)
            if problem:
                self.reason = f"{self._name} probe failed: {problem}"
                self._tell(f"{self._name}ProbeFailed", self.reason)
            if good >= self._settings.successes:
                self.passing, self.failed = True, False
            if bad == self._settings.failures:
                self.passing, self.failed = False, True
                self._fail()

    def _ask(self) -> str:
        """What is wrong in the kubelet's words, or nothing."""
        host, port = self._address
        connection = http.client.HTTPConnection(host, port, timeout=self._settings.timeout)
        try:
            connection.request("GET", self._settings.path, headers={"User-Agent": "kube-probe/1"})
            response = connection.getresponse()
            response.read(MAX_BODY)
            status = response.status
        except TimeoutError:
            return (
                f'Get "http://{host}:{port}{self._settings.path}": context deadline exceeded '
                "(Client.Timeout exceeded while awaiting headers)"
            )
        except (OSError, http.client.HTTPException):
            status = 502  # what the service's sidecar answers for a container that does not
        finally:
            connection.close()
        return "" if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"

"""Faults on demand: what goes wrong on a cloud, in the words and status codes of the cloud.

A fault is asked for over the control address (`POST /faults`, see server.py), or by a test from
`azure.faults`. It holds for `times` occasions, then all is well again.
"""

import re
import threading
from dataclasses import dataclass
from typing import Any, Literal

HOLD_SECONDS = 120.0
"""A request is held no longer than that: who asked for it has gone."""
Kind = Literal[
    "status",
    "reset",
    "lost_reply",
    "expired_sas",
    "failed_provisioning",
    "quota",
    "preempt",
    "slow",
    "image_pull",
    "hold",
    "hold_reply",
]
"""status: answer `status` (with Retry-After) before anything is done.
reset: close the connection before anything is done.
lost_reply: do it, then close the connection without an answer.
expired_sas: hand out a SAS that has ended.
failed_provisioning: the operation on a deployment or endpoint ends as Failed, with `cause`.
quota: refuse a job, deployment or compute for lack of quota.
preempt: take the node of the next job away, `seconds` after it began to run; with a `cause`, as
soon as its log has these words.
slow: let an operation take `seconds` longer.
image_pull: the node cannot pull the image.
hold, hold_reply: keep the connection waiting, before or after it is done, until the faults are
cleared, and close it then: whoever asked can be killed at that very request.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is to go wrong."""

    kind: Kind
    method: str = ".*"
    """Pattern of the request's method (status, reset, lost_reply, hold, hold_reply)."""
    path: str = ".*"
    """Pattern that the request's path, or the resource's ARM id, contains."""
    times: int = 1
    skip: int = 0
    """Occasions that pass before the first one that it spoils."""
    once_each: bool = False
    """Each request, by method and path, is spoiled once, however many there are."""
    status: int = 429
    retry_after: float = 1.0
    seconds: float = 1.0
    cause: str = ""


class Faults:
    """The faults that are still to happen, and what has happened since they were cleared."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[Fault, int, int]] = []
        """Each with how often it is still to pass and to strike."""
        self._spoiled: set[tuple[Kind, str, str]] = set()
        self._struck: list[str] = []
        self._held = 0
        self._released = threading.Event()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append((fault, fault.skip, fault.times))

    def clear(self) -> None:
        """None is left; what is held goes on."""
        with self._lock:
            self._waiting.clear()
            self._struck.clear()
            self._spoiled.clear()
            self._released.set()
            self._released = threading.Event()

    def report(self) -> dict[str, Any]:
        """What has struck where, how many requests are held, and how many faults still wait."""
        with self._lock:
            return {"struck": list(self._struck), "held": self._held, "left": len(self._waiting)}

    def take(self, kind: Kind, *, method: str = "", path: str = "") -> Fault | None:
        """The fault of this kind that is due here, which uses up one of its times."""
        with self._lock:
            for place, (fault, passes, left) in enumerate(self._waiting):
                fits = re.fullmatch(fault.method, method) or not method
                if fault.kind == kind and fits and re.search(fault.path, path, re.IGNORECASE):
                    if passes:
                        self._waiting[place] = (fault, passes - 1, left)
                        continue
                    if fault.once_each:
                        if (kind, method, path) in self._spoiled:
                            continue
                        self._spoiled.add((kind, method, path))
                    elif left > 1:
                        self._waiting[place] = (fault, 0, left - 1)
                    else:
                        del self._waiting[place]
                    self._struck.append(f"{kind}: {method} {path}".replace(":  ", ": "))
                    return fault
        return None

    def hold(self, kind: Kind, *, method: str, path: str) -> bool:
        """Wait here until the faults are cleared, if one of this kind is due; whether it was."""
        if not self.take(kind, method=method, path=path):
            return False
        with self._lock:
            released = self._released
            self._held += 1
        released.wait(HOLD_SECONDS)
        with self._lock:
            self._held -= 1
        return True

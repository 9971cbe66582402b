"""Faults on demand: what goes wrong on a cloud, in the words and status codes of the cloud.

A fault is asked for over the control address (`POST /faults`, see server.py), or by a test from
`azure.faults`. It holds for `times` occasions, then all is well again.
"""

import re
import threading
from dataclasses import dataclass
from typing import Literal

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
]
"""status: answer `status` (with Retry-After) before anything is done.
reset: close the connection before anything is done.
lost_reply: do it, then close the connection without an answer.
expired_sas: hand out a SAS that has ended.
failed_provisioning: the operation on a deployment or endpoint ends as Failed, with `cause`.
quota: refuse a job, deployment or compute for lack of quota.
preempt: take the node of the next job away, `seconds` after it began to run.
slow: let an operation take `seconds` longer.
image_pull: the node cannot pull the image.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is to go wrong."""

    kind: Kind
    method: str = ".*"
    """Pattern of the request's method (status, reset, lost_reply)."""
    path: str = ".*"
    """Pattern that the request's path, or the resource's ARM id, contains."""
    times: int = 1
    status: int = 429
    retry_after: float = 1.0
    seconds: float = 1.0
    cause: str = ""


class Faults:
    """The faults that are still to happen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def take(self, kind: Kind, *, method: str = "", path: str = "") -> Fault | None:
        """The fault of this kind that is due here, which uses up one of its times."""
        with self._lock:
            for place, (fault, left) in enumerate(self._waiting):
                fits = re.fullmatch(fault.method, method) or not method
                if fault.kind == kind and fits and re.search(fault.path, path, re.IGNORECASE):
                    if left > 1:
                        self._waiting[place] = (fault, left - 1)
                    else:
                        del self._waiting[place]
                    return fault
        return None

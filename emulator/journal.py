"""What was asked and answered, one JSON line each, and what makes the session red.

A problem is anything that must not happen in a rehearsal: a request that this Azure does not know
(501), a body or an answer against the contract, a host outside the allow-list, a bug of ours.
"""

import json
import threading
from pathlib import Path
from typing import Any


class Journal:
    """Writes `requests.jsonl` and `egress.jsonl` in its folder, and remembers problems."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._requests = folder / "requests.jsonl"
        self._egress = folder / "egress.jsonl"
        self._lock = threading.Lock()
        self._problems: list[str] = []
        self._hosts: dict[str, int] = {}

    def request(self, entry: dict[str, Any]) -> None:
        """Keep one exchange; the caller has taken secrets out of it."""
        self._append(self._requests, entry)

    def egress(self, host: str, *, allowed: bool) -> None:
        """Keep that a connection to `host` was asked for; one outside the list is a problem."""
        with self._lock:
            self._hosts[host] = self._hosts.get(host, 0) + 1
        self._append(self._egress, {"host": host, "allowed": allowed})
        if not allowed:
            self.problem(f"a connection to {host} was asked for, and refused")

    def problem(self, sentence: str) -> None:
        """Make the session red."""
        with self._lock:
            self._problems.append(sentence)

    def report(self) -> dict[str, Any]:
        """`{"problems": […], "hosts": {host: connections}}`."""
        with self._lock:
            return {"problems": list(self._problems), "hosts": dict(self._hosts)}

    def _append(self, path: Path, entry: dict[str, Any]) -> None:
        with self._lock, path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

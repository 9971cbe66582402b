"""What was asked and answered, one JSON line each, and what makes the session red.

A problem is anything that must not happen in a rehearsal: a request that this Azure does not know
(501), a body or an answer against the contract, a host outside the allow-list, a bug of ours.
"""

import json
import re
import threading
import urllib.parse
from pathlib import Path
from typing import Any

from emulator.http import Request


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


SECRET_KEYS = {
    "environmentvariables",
    "sastoken",
    "key",
    "key1",
    "key2",
    "keyvalue",
    "primarykey",
    "secondarykey",
    "accesstoken",
    "access_token",
    "refresh_token",
    "client_secret",
    "client_assertion",
    "secret",
    "connectionstring",
}
"""Members whose value is never kept, in lower case; of a map, its values."""
OPENAI_NAMES = re.compile(r"(files(?!/import)|uploads|parts|jobs|deployments|models)/[^/]+")
VAULT = re.compile(r"[^.]+\.vault\.azure\.net")
SCORING = re.compile(r"\.inference\.ml\.azure\.com$")
SIGNATURE = re.compile(r"\b(sig|code)=[^&\s\"']+")
HIDDEN = "…"
LONGEST = 200_000
"""Bytes of a body that is kept; a longer one leaves its length."""


def without_secrets(entry: dict[str, Any]) -> dict[str, Any]:
    """The exchange as it may be kept: bodies as JSON, secrets and what is no text left out."""
    kept = dict(entry)
    for side in ("request", "response"):
        body = kept[side]
        if isinstance(body, bytes):
            body = _parsed(body)
        elif body is not None and not isinstance(body, dict | list):
            body = "a stream"
        if body is not None and (
            SCORING.search(entry["host"]) or str(entry.get("path", "")).endswith("/completions")
        ):
            body = HIDDEN  # questions and answers are the user's own
        if VAULT.fullmatch(entry["host"]) and isinstance(body, dict) and "value" in body:
            body = {**body, "value": HIDDEN}
        kept[side] = _hide(body)
    kept["query"] = _hide(kept["query"])
    return kept


def shape(request: Request) -> str:
    """The request without the names in it: `PUT …/workspaces/jobs 2025-01-01-preview`."""
    path = request.path
    if "/providers/" in path:
        front, _, rest = path.rpartition("/providers/")
        provider, *parts = rest.split("/")
        lead = front.split("/subscriptions/")[0]
        path = "/".join([lead, provider, *parts[::2]])
        if len(parts) % 2 and len(parts) > 1:
            path += " (list or action)"
    elif request.host.endswith(".azurecr.io"):
        path = re.sub(r"(uploads|blobs|manifests)/.+", r"\1/*", path)
    elif request.host.endswith(".vault.azure.net"):
        path = "/secrets/*"
    elif request.host.endswith(".openai.azure.com"):
        path = OPENAI_NAMES.sub(r"\1/*", path)
    host = re.sub(r"^[^.]+\.(?=.*\.inference\.|api\.|azurecr|vault|openai)", "*.", request.host)
    return f"{request.method} {host} {path} {request.api_version}".rstrip()


def _parsed(body: bytes) -> Any:
    if not body:
        return None
    if len(body) > LONGEST:
        return f"{len(body)} bytes"
    try:
        return json.loads(body)
    except ValueError:
        pass
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"{len(body)} bytes"
    form = urllib.parse.parse_qsl(text)
    return dict(form) if form else text


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        hidden = {}
        for key, part in value.items():
            if key.lower() not in SECRET_KEYS or part is None:
                hidden[key] = _hide(part)
            elif isinstance(part, dict):
                hidden[key] = dict.fromkeys(part, HIDDEN)
            else:
                hidden[key] = HIDDEN
        return hidden
    if isinstance(value, list):
        return [_hide(part) for part in value]
    if isinstance(value, str):
        return SIGNATURE.sub(rf"\1={HIDDEN}", value)
    return value

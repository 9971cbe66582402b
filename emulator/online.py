"""What all parts of managed online endpoints share: the service's words, rules and defaults.

The sentences are the service's own where they are known: from its troubleshooting guide
(learn.microsoft.com, how-to-troubleshoot-online-endpoints) and from errors that people have shown.
The defaults and limits are those of the YAML reference of managed online deployments.
"""

import json
import re
from typing import Any

from emulator.http import WORKSPACE, Refusal

ENDPOINTS = rf"(?P<collection>{WORKSPACE}/onlineEndpoints)"
"""Path pattern of the workspace's endpoints."""
ENDPOINT = rf"(?P<endpoint_id>{WORKSPACE}/onlineEndpoints/(?P<endpoint>[^/]+))"
"""Path pattern of one endpoint, which leads the paths of its deployments."""

GUIDE = "Please see troubleshooting guide, available here: https://aka.ms/oe-tsg#error-"
SCORING_HOST = "inference.ml.azure.com"
MAX_REQUEST_SECONDS = 180.0
MAX_INSTANCES = 50
BUSY = ("Creating", "Updating", "Scaling", "Deleting")
"""States in which an operation is under way."""

_NAME = re.compile(r"[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?")
_CAUSE = re.compile(r"\(?([A-Z][A-Za-z]+)[):]+ *(.+)", re.DOTALL)
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def invalid(sentence: str, field: str = "") -> Refusal:
    """400 as the inferencing service refuses a request, in the control plane's envelope."""
    text = json.dumps(
        {"errors": {field: [sentence]}, "title": "One or more validation errors occurred."}
    )
    return Refusal(
        400,
        "BadRequest",
        "The request is invalid.",
        details=[{"code": "InferencingClientCallFailed", "message": text}],
    )


def failure(code: str, sentence: str) -> Refusal:
    """How an operation fails: its code, a sentence, and where to read about it."""
    return Refusal(400, code, f"{sentence.rstrip('.')}. {GUIDE}{code.lower()}")


def failure_of(cause: str) -> Refusal:
    """The failure that a fault asks for: `Code: sentence`, `(Code) sentence` or a sentence."""
    if found := _CAUSE.fullmatch(cause):
        return failure(found[1], found[2])
    return failure("InternalServerError", cause or "Internal error")


def canceled() -> Refusal:
    """How an operation fails that a deletion has overtaken."""
    return failure(
        "OperationCanceled",
        "Operation was canceled by another operation that has a higher priority",
    )


def not_found(what: str, name: str) -> Refusal:
    return Refusal(404, "NotFound", f"The {what} '{name}' was not found.")


def conflict(what: str, name: str) -> Refusal:
    """409 while another operation on it runs."""
    return Refusal(
        409,
        "Conflict",
        f"An operation is already in progress on {what} '{name}'. Wait until it is done.",
    )


def check_name(what: str, name: str) -> None:
    """Azure's rule for names of endpoints and deployments; Refusal 400."""
    if not 3 <= len(name) <= 32:
        raise invalid(f"The {what} name '{name}' must be between 3 and 32 characters long.", "name")
    if not _NAME.fullmatch(name):
        raise invalid(
            f"The {what} name '{name}' must start with a letter, hold only letters, digits and "
            "'-', and end with a letter or digit.",
            "name",
        )


def seconds(duration: str, field: str) -> float:
    """Of an ISO 8601 duration as the contract has them; Refusal 400 where it is none."""
    found = _DURATION.fullmatch(duration) if len(duration) > 2 else None
    if not found:
        raise invalid(f"'{duration}' is not an ISO 8601 duration.", field)
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def with_probe_defaults(probe: dict[str, Any] | None) -> dict[str, Any]:
    """ProbeSettings as the service completes them."""
    return {
        "initialDelay": "PT10S",
        "period": "PT10S",
        "timeout": "PT2S",
        "failureThreshold": 30,
        "successThreshold": 1,
        **_given(probe),
    }


def with_request_defaults(settings: dict[str, Any] | None) -> dict[str, Any]:
    """OnlineRequestSettings as the service completes them."""
    return {
        "maxConcurrentRequestsPerInstance": 1,
        "maxQueueWait": "PT0.5S",
        "requestTimeout": "PT5S",
        **_given(settings),
    }


def _given(settings: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (settings or {}).items() if value is not None}

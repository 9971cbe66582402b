"""What travels between the server and the routes: requests, replies, refusals.

A module of routes has one function `routes(azure: Azure) -> list[Route]`; front.py takes the first
route that matches method, host and path.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Refusal(Exception):
    """An answer in Azure's error envelope."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = list(details)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The envelope as Azure ML's front end sends it."""
        return {
            "error": {
                "code": self.code,
                "message": str(self),
                "details": self.details,
                "additionalInfo": [
                    {"type": "ComponentName", "info": {"value": "managementfrontend"}}
                ],
            }
        }


class Dropped(Exception):
    """The connection is to be closed without an answer: a fault that was asked for."""


class Readable(Protocol):
    """A body that is read as it comes."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; none at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; header names are in lower case, the path is decoded, without `//` and query."""

    method: str
    host: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Readable | None = None
    """Stands for `body` where that may be gigabytes: requests to the container registry."""

    @property
    def api_version(self) -> str:
        return self.query.get("api-version", "")

    def json(self) -> Any:
        """The body; Refusal 400 where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise Refusal(400, "InvalidRequestContent", "The body is no JSON.") from None


@dataclass(slots=True)
class Reply:
    """One answer: JSON for dicts and lists, bytes as they are, an iterator as a stream.

    A stream is chunked unless `headers` give its Content-Length; its generator is closed where the
    client goes away. A Content-Type in `headers` stands for the one of the body's kind.
    """

    status: int = 200
    body: dict[str, Any] | list[Any] | bytes | Iterator[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request, Mapping[str, str]], Reply]
"""Takes the request and the named groups of host and path pattern."""


@dataclass(frozen=True, slots=True)
class Route:
    """Answers `method` on hosts and paths that match the two patterns wholly, ignoring case."""

    method: str
    host: str
    path: str
    handler: Handler

    def match(self, request: Request) -> dict[str, str] | None:
        """The named groups, or None where the route is for something else."""
        if request.method != self.method:
            return None
        host = re.fullmatch(self.host, request.host, re.IGNORECASE)
        path = re.fullmatch(self.path, request.path, re.IGNORECASE)
        if not host or not path:
            return None
        return {**host.groupdict(), **path.groupdict()}


ARM = r"management\.azure\.com"
"""Host pattern of the control plane."""
API = r"[a-z0-9]+\.api\.azureml\.ms"
"""Host pattern of a region's data plane: discovery, run history, data and model registry."""
WORKSPACE = (
    r"(?P<workspace_id>/subscriptions/[^/]+/resourceGroups/[^/]+"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/[^/]+)"
)
"""Path pattern of the workspace's ARM id, which leads the paths of its resources."""

"""One request as bytes, sent to the server, and what is wrong with the answer.

    complaint, status = judge(attempt, send(port, attempt), documented)

Right is: an answer in time, none of 5xx, and a sentence in the server's own form with every 4xx. A
request that is broken as HTTP may also be left without an answer, its connection closed.
"""

import http.client
import json
import shlex
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PATIENCE_SECONDS = 30.0
"""More than any limit of the server, for requests of at most some hundred tokens."""
OF_HTTP = frozenset((400, 404, 405, 408, 414, 417, 431))
"""What any request may be answered, whatever its route documents."""
NO_BODY = "HEAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request."""

    kind: str
    """Which generator made it."""
    method: str = "POST"
    target: str = "/score"
    headers: tuple[tuple[str, bytes], ...] = ()
    body: bytes | None = None
    raw: bytes | None = None
    """Instead of all that: a request that is perhaps no HTTP."""
    ends: bool = True
    """The client closes its side when it has sent all; one that does not has to wait."""

    def wire(self) -> bytes:
        if self.raw is not None:
            return self.raw
        lines = [f"{self.method} {self.target} HTTP/1.1".encode("latin-1", "replace")]
        lines += [b"Host: fuzz", b"Connection: close"]
        lines += [name.encode() + b": " + value for name, value in self.headers]
        if self.body is not None:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + (self.body or b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    """0 is none: the connection was closed."""
    body: bytes
    late: bool
    """The server was not done within PATIENCE_SECONDS."""


def send(port: int, attempt: Attempt) -> Answer:
    """OSError where not even the connection can be made: then there is no server."""
    end = time.monotonic() + PATIENCE_SECONDS
    status, body = 0, b""
    with socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS) as client:
        try:
            client.sendall(attempt.wire())
            if attempt.ends and attempt.raw is not None:
                client.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(client, method=attempt.method)
            response.begin()
            status = response.status
            body = response.read()
        except TimeoutError:
            return Answer(status=status, body=body, late=True)
        except (OSError, http.client.HTTPException):  # closed, before or within the answer
            pass
    return Answer(status=status, body=body, late=time.monotonic() > end)


def judge(attempt: Attempt, answer: Answer, documented: Collection[int] | None) -> str | None:
    """What is wrong, in words; `documented` are the route's statuses, None where it is no route."""
    if answer.late:
        return f"no whole answer within {PATIENCE_SECONDS:g} s"
    if answer.status == 0:
        return None if attempt.raw is not None else "the connection was closed without an answer"
    if answer.status >= 500:
        return f"answered {answer.status}"
    if answer.status not in OF_HTTP and documented is not None and answer.status not in documented:
        return f"answered {answer.status}, which the description does not name"
    if answer.status >= 400 and attempt.method != NO_BODY:
        return in_our_form(answer.status, answer.body)
    return None


def in_our_form(status: int, body: bytes) -> str | None:
    """What is wrong with the body of a 4xx, in words."""
    try:
        error: Any = json.loads(body)["error"]
        said = error["message"]
        code = error.get("status", error.get("code"))
    except (ValueError, TypeError, KeyError):
        return f"answered {status} without our error: {body[:200]!r}"
    if code != status:
        return f"answered {status}, and {code} in the body"
    if not isinstance(said, str) or len(said.split()) < 3 or said.rstrip()[-1] not in ".?":
        return f"answered {status} without a sentence: {said!r}"
    if "Traceback" in said or 'File "' in said:
        return f"answered {status} with a traceback: {said!r}"
    return None


def curl(attempt: Attempt, port: int, file: Path) -> str:
    """The command that repeats it; `file` has its body, or all of it where it is raw."""
    if attempt.raw is not None:
        return f"curl -sS --max-time 30 telnet://{HOST}:{port} < {shlex.quote(str(file))}"
    words = ["curl", "-sS", "-i", "--path-as-is", "-X", attempt.method]
    for name, value in attempt.headers:
        words += ["-H", f"{name}: {value.decode('latin-1')}"]
    if attempt.body is not None:
        words += ["--data-binary", f"@{file}"]
    return shlex.join([*words, f"http://{HOST}:{port}{attempt.target}"])


def documented(description: Mapping[str, Any], attempt: Attempt) -> list[int] | None:
    """Statuses that the description has for the route, by whatever method it is asked."""
    operations = description["paths"].get(attempt.target.partition("?")[0])
    if operations is None or attempt.raw is not None:
        return None
    return [int(code) for about in operations.values() for code in about["responses"]]

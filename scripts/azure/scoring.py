"""Ask an endpoint one thing with its key; each refusal is one sentence with the next command.

    Client("hp-tiny-ja-1a2b", uri, key, seconds=180).ask({"prompt": "…"})

The SDK's own `invoke` keeps the key and the pinned deployment in a header dict that all later calls
of the process share; here headers are made anew for every request. It does not stream.
"""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.azure.retry import seconds
from scripts.console import say
from scripts.errors import CloudError

if TYPE_CHECKING:
    import requests

PIN = "azureml-model-deployment"
"""Request: the deployment that is to answer. Response: the one that did."""
CONTAINER_STATUS = "ms-azureml-model-error-statuscode"
CONTAINER_REASON = "ms-azureml-model-error-reason"
"""What the container said, where Azure answers 424."""

STATUS_COMMAND = "make cloud-status"
TRIES = 4
CONNECT_SECONDS = 10.0
LONGEST_PAUSE = 30.0
"""A Retry-After beyond this is not waited for; the caller is told."""
PASSING = (429, 502, 503, 504)
"""Statuses that may be gone at the next try; an answer costs nothing twice."""
SHOWN = 300
"""Characters of an answer that is shown in an error."""


class ScoringError(CloudError):
    """The endpoint did not answer with success."""

    def __init__(self, reason: str, step: str, status: int = 0) -> None:
        super().__init__(f"{reason}; next: {step}")
        self.reason = reason
        """The sentence without the next command."""
        self.status = status
        """HTTP status; 0 where there was no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its JSON, and the deployment that gave it (empty where Azure did not say)."""

    body: dict[str, Any]
    deployment: str
    endpoint: str

    @property
    def by(self) -> str:
        """The endpoint, and the deployment where Azure said it."""
        return (
            f"{self.endpoint}, deployment {self.deployment}" if self.deployment else self.endpoint
        )


class Client:
    """Asks one endpoint. `seconds` is how long an answer may take, longer than Azure's timeout."""

    def __init__(self, endpoint: str, uri: str, key: str, *, seconds: float) -> None:
        self.endpoint = endpoint
        self.uri = uri
        self.seconds = seconds
        self._key = key

    def __repr__(self) -> str:
        return f"Client({self.endpoint!r}, {self.uri!r})"

    def ask(
        self, body: Mapping[str, Any], *, deployment: str = "", settling: bool = False
    ) -> Answer:
        """The answer to `body`, of `deployment` where it is named. ScoringError otherwise.

        Asks again, TRIES times in all, where Azure was busy or the connection broke; with
        `settling` also where Azure's router may not know the deployment yet.
        """
        import requests

        headers = {"Authorization": f"Bearer {self._key}"}
        if deployment:
            headers[PIN] = deployment
        pause = 1.0
        for left in reversed(range(TRIES)):
            try:
                reply = requests.post(
                    self.uri,
                    json=dict(body),
                    headers=headers,
                    timeout=(CONNECT_SECONDS, self.seconds),
                    allow_redirects=False,
                )
            except requests.ReadTimeout:
                raise ScoringError(
                    f"{self.endpoint} did not answer within {self.seconds:.0f} s", STATUS_COMMAND
                ) from None
            except requests.ConnectionError as error:
                if not left:
                    raise ScoringError(
                        f"{self.endpoint} cannot be reached at {self.uri} ({_line(str(error))})",
                        STATUS_COMMAND,
                    ) from None
                say(f"{self.endpoint}: the connection broke, again in {pause:.0f} s")
            else:
                if reply.ok:
                    return self._answer(reply)
                wait = seconds(reply.headers) or pause
                if not left or wait > LONGEST_PAUSE or not _passing(reply, settling):
                    raise ScoringError(*self.meaning(reply, deployment), reply.status_code)
                pause = wait
                say(f"{self.endpoint}: HTTP {reply.status_code}, again in {pause:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("the last try returns or raises")

    def _answer(self, reply: "requests.Response") -> Answer:
        try:
            body = reply.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ScoringError(
                f"{self.endpoint} answered {reply.status_code}, but no JSON object: "
                f"{_line(reply.text)}",
                STATUS_COMMAND,
                reply.status_code,
            )
        return Answer(body, reply.headers.get(PIN, ""), self.endpoint)

    def meaning(self, reply: "requests.Response", deployment: str = "") -> tuple[str, str]:
        """What an answer without success means, and what to do."""
        name, said = self.endpoint, message(reply)
        match reply.status_code:
            case 401:
                return (
                    f"{name} refused the key (401): it was made anew since",
                    f"the same command again, or make cloud-key ENDPOINT={name}",
                )
            case 403:
                return (
                    f"{name} does not let this caller in (403): {said or 'no reason given'}",
                    "ask from inside its network, or allow it public network access",
                )
            case 404 if deployment:
                return f"{name} has no deployment {deployment} that answers (404)", STATUS_COMMAND
            case 404:
                return f"{name} has no deployment that takes traffic (404)", "make cloud-deploy"
            case 408:
                return (
                    f"{name} needed longer than its request_timeout_ms allows (408)",
                    "ask for fewer tokens (max_new_tokens), or choose a larger "
                    "cloud.serve_instance_type and make cloud-deploy",
                )
            case 424:
                status = reply.headers.get(CONTAINER_STATUS) or "nothing"
                said = said or reply.headers.get(CONTAINER_REASON) or "no reason given"
                step = f"make cloud-logs ENDPOINT={name}"
                return (
                    f"the container of {name} answered {status} (424): {said}",
                    "correct the request" if status.startswith("4") else step,
                )
            case 429:
                return (
                    f"{name} has more requests than it takes at once (429)",
                    "ask again later, or raise cloud.serve_instances and make cloud-deploy",
                )
            case status:
                return f"{name} answered {status}: {said or 'nothing'}", STATUS_COMMAND

    def curl(self, body: Mapping[str, Any]) -> str:
        """The command line that sends `body`: bash asks for the key when it runs.

        curl reads the header from a file descriptor, since everyone here can read its arguments.
        """
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return (
            f"curl -s {self.uri} "
            "-H @<(printf 'Authorization: Bearer %s' "
            f'"$(make -s cloud-key ENDPOINT={self.endpoint})") '
            f"-H {shlex.quote('Content-Type: application/json')} -d {shlex.quote(text)}"
        )


def message(reply: "requests.Response") -> str:
    """The message in an error's answer: ours, Azure's, or its first line."""
    try:
        body = reply.json()
    except ValueError:
        return _line(reply.text)
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return _line(error["message"])
    return _line(error if isinstance(error, str) else reply.text)


def _line(text: str) -> str:
    return " ".join(text.split())[:SHOWN]


def _passing(reply: "requests.Response", settling: bool) -> bool:
    """Whether the next try may succeed."""
    if reply.status_code in PASSING:
        return True
    unknown = reply.status_code == 424 and not reply.headers.get(CONTAINER_STATUS)
    return settling and (unknown or reply.status_code == 404)

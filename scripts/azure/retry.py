"""What is done again when Azure is busy or a connection breaks, and what each failure is called.

    jobs = call("list the jobs", lambda: list(cloud.ml.jobs.list()))

429, 408, 5xx and broken connections are tried again after growing waits, or after what the service
asks for (Retry-After). All else, and what does not mend, becomes a CloudError in one sentence. What
must not be done twice is called with `again=False`: then only what surely was not begun is sent
again (429, and a connection that never stood). It starts nothing and knows no resource.
"""

import email.utils
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from scripts.azure import causes
from scripts.console import say
from scripts.errors import CloudError

T = TypeVar("T")

BUSY = frozenset({408, 429, 500, 502, 503, 504})
WAITS: tuple[float, ...] = (0.2, 1, 2, 4, 8, 16, 30)
"""Seconds between tries: a minute in all, as long as a service restarts; the first one is for a
connection that broke by chance."""
PATIENT: tuple[float, ...] = (*WAITS, *[30.0] * 18)
"""Ten minutes: for looking on at what goes on without us."""
NO_ROLE = "ask the workspace's owner whether your sign-in may do that."
LONGEST = 600.0
"""Seconds that are waited at the most because the service asks for it."""
UNREACHED = re.compile(
    r"(Unable to connect to proxy|NewConnectionError|ConnectTimeout|NameResolutionError"
    r"|Max retries exceeded|Connection aborted|SSLError|CERTIFICATE_VERIFY_FAILED)"
)
"""Of urllib3 and requests, below azure-identity and az."""
WORDS_SHOWN = 600
"""Characters of a refusal: its message, and then its details."""


class Refused(CloudError):
    """Azure answered with an error that trying again does not mend."""

    def __init__(self, sentence: str, status: int = 0, code: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        """HTTP status; 0 where an operation failed that had been accepted."""
        self.code = code
        """The service's name of the error, such as ResourceNotFound."""


class NotFound(Refused):
    """404: it is not there."""


def call(
    what: str,
    function: Callable[[], T],
    *,
    again: bool = True,
    waits: Iterable[float] = WAITS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The function's result; `what` completes "could not …" in the error, as in `list the jobs`.

    Raises NotFound, Refused, or CloudError where Azure stays unreachable.
    """
    from azure.core.exceptions import AzureError

    left = iter(waits)
    while True:
        try:
            return function()
        except (AzureError, OSError) as error:
            wait = next(left, None) if transient(error, again=again) else None
            if wait is None:
                failure = translate(what, error)
                if failure is None:  # a bug, or an error of the verb's own
                    raise
                raise failure from error
            wait = retry_after(error) or wait * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
            say(f"azure:  {_short(error)}; {what} again in {wait:.{0 if wait >= 1 else 1}f} s")
            sleep(wait)


def transient(error: BaseException, *, again: bool = True) -> bool:
    """Whether trying again may help; without `again`: and surely nothing was begun."""
    import requests
    import urllib3
    from azure.core import exceptions

    if isinstance(error, exceptions.ClientAuthenticationError):
        return False
    if isinstance(error, exceptions.HttpResponseError):
        status = error.status_code or 0
        if status:
            return status in BUSY if again else status == 429
    if not again:
        return _never_stood(error)
    broken = (
        exceptions.ServiceRequestError,
        exceptions.ServiceResponseError,
        exceptions.IncompleteReadError,
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.ProtocolError,
        ConnectionError,
        TimeoutError,
    )
    chain = (error, error.__cause__, error.__context__)
    return any(isinstance(link, broken) for link in chain)


def _never_stood(error: BaseException | None) -> bool:
    """Whether the connection was refused, so that nothing was sent.

    azure-core's ServiceRequestError alone does not say so: behind a proxy it is raised too where
    the answer was lost.
    """
    from urllib3 import exceptions

    if isinstance(error, exceptions.NewConnectionError | exceptions.ConnectTimeoutError):
        return True
    inner = [getattr(error, name, None) for name in ("inner_exception", "reason", "original_error")]
    inner += getattr(error, "args", ())
    return any(_never_stood(link) for link in inner if isinstance(link, BaseException))


def unreached(error: BaseException) -> str:
    """Why a login's host does not answer; empty where it did, and refused.

    azure-identity calls both the same, and names the reason only in its text, a line for each
    credential that was tried.
    """
    found = UNREACHED.search(str(error))
    return found[1] if found else ""


def translate(what: str, error: BaseException) -> CloudError | None:
    """The error as one sentence; None where it is none of Azure's."""
    from azure.core import exceptions

    if isinstance(error, exceptions.ClientAuthenticationError):
        if lost := unreached(error):
            return CloudError(
                f"could not {what}: Azure's login cannot be reached ({lost}): check the network "
                "and HTTPS_PROXY, and give the same command again."
            )
        return CloudError(
            f"could not {what}: Azure does not accept who asks ({_short(error)}): log in with "
            "az login, or check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
        )
    if isinstance(error, exceptions.HttpResponseError) and error.status_code:
        code, message = _said(error)
        if error.status_code < 400:  # the look went well, and told of an operation's failure
            return Refused(f"could not {what}: Azure failed ({code}): {message}", 0, code)
        kind = NotFound if error.status_code == 404 else Refused
        sentence = f"could not {what}: Azure answered {error.status_code} ({code}): {message}"
        if error.status_code in (401, 403):
            sentence += f" Next: {causes.explain(sentence) or NO_ROLE}"
        return kind(sentence, error.status_code, code)
    if transient(error):
        return CloudError(
            f"could not {what}: Azure cannot be reached ({_short(error)}): check the network and "
            "give the same command again."
        )
    if isinstance(error, exceptions.AzureError):
        return CloudError(f"could not {what}: {_short(error)}")
    return None


def retry_after(error: BaseException) -> float | None:
    """Seconds that the service asks to wait; None where it does not say."""
    response = getattr(error, "response", None)
    return seconds(response.headers) if response is not None else None


def seconds(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, whether it gives seconds or a date (RFC 9110, section 10.2.3)."""
    text = headers.get("Retry-After")
    if not text:
        return None
    try:
        wait = float(text)
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(wait, 0.1), LONGEST)


def words(error: BaseException) -> str:
    """What the service says in the error, on one line."""
    return _said(error)[1]


def _said(error: Any) -> tuple[str, str]:
    """Code, and message with its details, of Azure's error envelope."""
    try:
        envelope = json.loads(error.response.text())  # of both kinds that azure-core has
        inner = envelope.get("error", envelope)
        code = inner.get("code") or error.reason
        said = list(dict.fromkeys(_messages(inner)))
    except Exception:  # what a proxy or gateway answers is no envelope
        return getattr(error, "reason", "") or "no reason", _short(error)
    text = " ".join(said) or _short(error)
    return str(code), text if len(text) <= WORDS_SHOWN else f"{text[:WORDS_SHOWN]} …"


def _messages(inner: Mapping[str, Any]) -> Iterator[str]:
    """Its message and those of its details, where refusals for quota put what matters."""
    message = str(inner.get("message") or "")
    try:  # the inferencing service's refusals are JSON within the message
        fields = json.loads(message)["errors"]
        yield from (" ".join(str(text).split()) for texts in fields.values() for text in texts)
    except (ValueError, TypeError, KeyError, AttributeError):
        if message.strip():
            yield " ".join(message.split())
    for detail in inner.get("details") or ():
        yield from _messages(detail)


def _short(error: BaseException) -> str:
    """The first line of the error, without the addresses of connection objects."""
    status = getattr(error, "status_code", None)
    if status in BUSY:
        return f"Azure answered {status}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[0] if len(lines[0]) < 300 else f"{lines[0][:300]} …"

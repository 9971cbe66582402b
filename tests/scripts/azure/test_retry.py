import email.utils
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3
from azure.core import exceptions

from scripts.azure import retry
from scripts.errors import CloudError


class Response:
    """As much of an HTTP response as azure-core's errors look at."""

    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None):
        self.status_code = status
        self.reason = "Reason"
        self.headers = headers or {}
        self._body = body

    def text(self) -> str:
        return "" if self._body is None else json.dumps(self._body)


def answer(status: int, body: Any = None, **headers: str) -> exceptions.HttpResponseError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response: Any = Response(status, body, named)
    return exceptions.HttpResponseError(message=f"status {status}", response=response)


class Flaky:
    """Fails with each of the errors, then answers; counts the calls."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.mark.parametrize(
    "error",
    [
        answer(429),
        answer(408),
        answer(500),
        answer(503),
        exceptions.ServiceRequestError("no connection"),
        exceptions.ServiceResponseError("reset by peer"),
        exceptions.IncompleteReadError("half an answer"),
        requests.ConnectionError("reset"),
        requests.exceptions.ChunkedEncodingError("half an answer"),
        ConnectionResetError("reset"),
        TimeoutError("too long"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_what_may_mend_is_tried_again(error: BaseException, slept: list[float]) -> None:
    flaky = Flaky(error, error)
    assert retry.call("ask", flaky, sleep=slept.append) == "done"
    assert flaky.calls == 3
    assert 0 < slept[0] < slept[1]


def test_the_service_says_how_long_to_wait(slept: list[float]) -> None:
    soon = email.utils.formatdate(time.time() + 60, usegmt=True)
    flaky = Flaky(answer(429, Retry_After="7"), answer(503, Retry_After=soon))
    retry.call("ask", flaky, sleep=slept.append)
    assert slept[0] == 7
    assert 55 < slept[1] <= 60


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.1),
        ({"Retry-After": "86400"}, retry.LONGEST),
        ({"Retry-After": "soon"}, None),
    ],
)
def test_odd_waits_are_bounded(headers: dict[str, str], seconds: float | None) -> None:
    assert retry.seconds(headers) == seconds


def no_connection(reason: Exception) -> exceptions.ServiceRequestError:
    """As azure-core raises it, around requests' error around urllib3's."""
    pool: Any = None
    inner = requests.ConnectionError(urllib3.exceptions.MaxRetryError(pool, "/", reason))
    return exceptions.ServiceRequestError(inner, error=inner)


REFUSED = no_connection(urllib3.exceptions.ConnectTimeoutError("refused"))
PROXY_REFUSED = no_connection(
    urllib3.exceptions.ProxyError("proxy", urllib3.exceptions.ConnectTimeoutError("refused"))
)
PROXY_LOST = no_connection(urllib3.exceptions.ProxyError("proxy", ConnectionResetError("closed")))


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (answer(429), 2),
        (REFUSED, 2),
        (PROXY_REFUSED, 2),
        (PROXY_LOST, 1),
        (answer(500), 1),
        (exceptions.ServiceResponseError("reset by peer"), 1),
    ],
    ids=["429", "refused", "proxy refused", "lost behind a proxy", "500", "lost"],
)
def test_what_must_not_be_done_twice_is_only_sent_again_if_surely_nothing_was_begun(
    error: BaseException, calls: int, slept: list[float]
) -> None:
    flaky = Flaky(error)
    if calls == 1:
        with pytest.raises(CloudError):
            retry.call("submit", flaky, again=False, sleep=slept.append)
    else:
        retry.call("submit", flaky, again=False, sleep=slept.append)
    assert flaky.calls == calls


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            "does not have authorization to perform action 'a/read' over scope '/s'",
            "may not do a/re",
        ),
        ("No.", "ask the workspace's owner whether"),
    ],
)
def test_a_refusal_for_lack_of_a_role_says_whom_to_ask(
    words: str, remedy: str, slept: list[float]
) -> None:
    refusal = answer(403, {"error": {"code": "Forbidden", "message": words}})
    with pytest.raises(retry.Refused, match=f"Azure answered 403.*Next: .*{remedy}"):
        retry.call("look", Flaky(refusal), sleep=slept.append)
    assert slept == []


def test_what_does_not_mend_ends_with_a_sentence(slept: list[float]) -> None:
    flaky = Flaky(*[exceptions.ServiceRequestError("no route")] * 9)
    with pytest.raises(CloudError, match="could not list the jobs: Azure cannot be reached"):
        retry.call("list the jobs", flaky, sleep=slept.append)
    assert flaky.calls == len(retry.WAITS) + 1


ENVELOPE = {"error": {"code": "UserError", "message": "Name is\ntoo long.", "details": []}}
QUOTA = {
    "error": {
        "code": "BadRequest",
        "message": "The request is invalid.",
        "details": [
            {
                "code": "InferencingClientCallFailed",
                "message": '{"errors": {"VmSize": ["Not enough quota\\n available."]}}',
            },
            {"code": "Same", "message": "The request is invalid."},
        ],
    }
}
FAILED = {"status": "Failed", "error": {"code": "OutOfQuota", "message": "Too few cores."}}
NESTED = {"error": {"code": "Bad", "message": "", "details": [{"message": "The inner one."}]}}


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (answer(400, ENVELOPE), retry.Refused, r"answered 400 \(UserError\): Name is too long\."),
        (
            answer(400, QUOTA),
            retry.Refused,
            r"answered 400 \(BadRequest\): The request is invalid\. Not enough quota available\.$",
        ),
        (answer(409, NESTED), retry.Refused, r"answered 409 \(Bad\): The inner one\."),
        (answer(404, ENVELOPE), retry.NotFound, "answered 404"),
        (answer(403), retry.Refused, r"answered 403 \(Reason\)"),
        (exceptions.ClientAuthenticationError("expired"), CloudError, "az login"),
        (exceptions.AzureError("the SDK does not like it"), CloudError, "does not like it"),
    ],
)
def test_a_refusal_is_told_at_once_in_the_services_words(
    error: BaseException, kind: type[CloudError], words: str, slept: list[float]
) -> None:
    with pytest.raises(kind, match=words) as caught:
        retry.call("make it", Flaky(error), sleep=slept.append)
    assert not slept
    assert caught.value.__cause__ is error
    if isinstance(caught.value, retry.Refused):
        assert caught.value.status == error.status_code  # type: ignore[attr-defined]


def test_an_operation_that_failed_is_no_answer_of_200() -> None:
    with pytest.raises(retry.Refused) as caught:
        retry.call("make it", Flaky(answer(200, FAILED)))
    assert str(caught.value) == "could not make it: Azure failed (OutOfQuota): Too few cores."
    assert (caught.value.status, caught.value.code) == (0, "OutOfQuota")


def test_a_refusal_of_many_words_is_cut() -> None:
    long = {"error": {"code": "Long", "message": "word " * 1000}}
    assert len(retry.words(answer(400, long))) < 610


@pytest.mark.parametrize("error", [FileNotFoundError("rows.jsonl"), CloudError("ours")])
def test_errors_that_are_not_azures_pass_through(error: Exception, slept: list[float]) -> None:
    function: Callable[[], str] = Flaky(error)
    with pytest.raises(type(error)) as caught:
        retry.call("ask", function, sleep=slept.append)
    assert caught.value is error

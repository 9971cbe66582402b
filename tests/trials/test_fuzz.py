"""`make fuzz`: what it sends, what it calls wrong, and a short run against the real server."""

import http.server
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from serve import openapi
from tests.serve.conftest import save_model, save_tokenizer
from trials import environment, fuzz, fuzz_inputs
from trials.fuzz_send import Answer, Attempt, documented, judge, send

DESCRIPTION: Any = openapi.document()
GENERATORS = sorted(fuzz_inputs.kinds(DESCRIPTION))
ERROR = b'{"error": {"code": 400, "message": "the body is empty; send an object."}}'


def answer(status: int, body: bytes = b"", *, late: bool = False) -> Answer:
    return Answer(status=status, body=body, late=late)


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (answer(200), None),
        (answer(400, ERROR), None),
        (answer(404, ERROR), "answered 404, and 400 in the body"),
        (answer(400, ERROR.replace(b"body is empty; send an object.", b"")), "without a sentence"),
        (answer(400, b"<html>Bad Request</html>"), "without our error"),
        (answer(400, b'{"error": null}'), "without our error"),
        (answer(413, ERROR.replace(b"400", b"413")), None),
        (answer(418, ERROR), "which the description does not name"),
        (answer(500, ERROR), "answered 500"),
        (answer(503, ERROR), "answered 503"),
        (answer(0), "closed without an answer"),
        (answer(200, late=True), "no whole answer within 30 s"),
    ],
)
def test_an_answer_is_right_or_called_wrong_in_words(got: Answer, words: str | None) -> None:
    attempt = Attempt(kind="x")
    wrong = judge(attempt, got, documented(DESCRIPTION, attempt))
    assert wrong is None if words is None else words in str(wrong)


def test_what_is_no_http_may_be_left_without_an_answer_but_not_without_an_end() -> None:
    attempt = Attempt(kind="x", raw=b"\x00")
    assert judge(attempt, answer(0), None) is None
    assert judge(attempt, answer(0, late=True), None) is not None


def drawn(name: str, count: int = 30) -> list[Attempt]:
    found: list[Attempt] = []

    @hypothesis.seed(7)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(fuzz_inputs.kinds(DESCRIPTION)[name])
    def keep(attempt: Attempt) -> None:
        found.append(attempt)

    keep()
    return found


@pytest.mark.parametrize("name", GENERATORS)
def test_the_same_seed_sends_the_same_requests_and_hardly_one_twice(name: str) -> None:
    found = drawn(name)
    assert found == drawn(name)
    assert len({attempt.wire() for attempt in found}) > 15


class Flawed(http.server.BaseHTTPRequestHandler):
    """Answers 500 to a body with a zero byte, and refuses all others well."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500 if b"\x00" in body else 400)
        self.end_headers()
        self.wfile.write(ERROR)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def flawed() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flawed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(port=server.server_address[1])
        server.shutdown()


def test_a_request_that_fails_is_made_small_and_kept_with_the_curl_that_repeats_it(
    flawed: Any, tmp_path: Path
) -> None:
    bodies = st.binary(max_size=200).map(lambda body: Attempt(kind="any bytes", body=body))
    seen = fuzz.Seen(folder=tmp_path)
    sent = fuzz._generated(flawed, DESCRIPTION, ("any bytes", bodies), 500, 7, seen)
    assert seen.failures == ["any bytes: answered 500"]
    assert seen.answers.total() == sent
    assert (tmp_path / "01-any-bytes.body").read_bytes() == b"\x00"
    why, command = (tmp_path / "01-any-bytes.sh").read_text().splitlines()
    assert why == "# answered 500"
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=30)
    assert " 500 " in done.stdout.splitlines()[0]


def test_a_server_that_is_gone_is_a_failure_too(tmp_path: Path) -> None:
    seen = fuzz.Seen(folder=tmp_path)
    with pytest.raises(ConnectionRefusedError):
        send(1, Attempt(kind="x"))
    nobody: Any = SimpleNamespace(port=1)
    fuzz._generated(nobody, DESCRIPTION, ("x", st.just(Attempt(kind="x"))), 1, 7, seen)
    assert "Connection refused" in seen.failures[0]


@pytest.mark.slow
def test_three_hundred_wrong_requests_leave_the_server_as_it_was(tmp_path: Path) -> None:
    """Answers are held against the description, by schemathesis too."""
    try:
        python = environment.ensure(fuzz.HERE / "fuzz.txt")
    except environment.UnavailableError as error:
        pytest.skip(f"trials/fuzz.txt cannot be installed: {error}")
    model = tmp_path / "model"
    model.mkdir()
    save_model(model, save_tokenizer(model))
    environ = {"SERVE_ENGINE": "transformers", "SERVE_CONTEXT": "300"}
    rows = fuzz.fuzz(model, 300, 7, python, tmp_path, environ)
    report = [file.read_text() for file in tmp_path.glob("fuzz-failures/*.[st][hx]*")]
    assert [row.name for row in rows if row.met is False] == [], report
    assert next(row.value for row in rows if row.name == "all") >= 300

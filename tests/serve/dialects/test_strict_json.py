"""Bodies that are no JSON, or JSON that Python would half ignore, on every route."""

import pytest

from serve.dialects import MAX_BODY_BYTES, ROUTES
from tests.serve.dialects.talk import ask, refused

PLACES = [route for route in ROUTES if not route.startswith("/openai")]
"""Those below /openai are read by the same tables; test_azure.py has what is theirs."""
pytestmark = pytest.mark.parametrize("route", PLACES)
REST = {
    "/score": b'"prompt": "hi"',
    "/v1/completions": b'"prompt": "hi"',
    "/v1/chat/completions": b'"messages": [{"role": "user", "content": "hi"}]',
}


def rest(route: str) -> bytes:
    return REST.get(route) or REST[f"/v1{route}"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{\n  'prompt': 1}", "line 2 column 3"),
        (b"prompt=hi", "line 1 column 1"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"3", "JSON object"),
        (b"null", "JSON object"),
        (b'"{\\"prompt\\": 1}"', "encoded once"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"temperature": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"temperature": -Infinity}', "Infinity"),
        (b'{"prompt": "a", "prompt": "b"}', "given twice"),
        (b'{"a": {"b": 1, "b": 1}}', "given twice"),
    ],
)
def test_a_body_that_is_no_json_object_says_what_it_is(route: str, body: bytes, words: str) -> None:
    error = refused(route, body)
    assert error.status == 400
    assert words in error.sentence


def test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_read(route: str) -> None:
    body = b"{%s%s}" % (b" " * (MAX_BODY_BYTES - len(rest(route)) - 2), rest(route))
    assert ask(route, body).requests
    assert refused(route, body + b" ").status == 413


def test_a_byte_order_mark_is_no_obstacle(route: str) -> None:
    assert ask(route, b"\xef\xbb\xbf{%s}" % rest(route)).requests


def test_an_error_about_unsendable_text_can_still_be_sent(route: str) -> None:
    assert refused(route, b'{%s, "\\ud800": 1}' % rest(route)).field == "?"
    assert len(refused(route, b'{%s, "%s": 1}' % (rest(route), b"k" * 9000)).field or "") == 64


def test_an_infinite_number_is_refused(route: str) -> None:
    assert refused(route, b'{%s, "min_p": 1e999}' % rest(route)).field == "min_p"

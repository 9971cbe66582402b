"""The soak's requests, and what it reads out of the bytes that come back."""

import json

from trials.soak_asks import mixed, questions, read

HEAD = "x-request-id: soak-7\r\n"


def reply(status: str, body: str, head: str = "", kind: str = "application/json") -> bytes:
    data = body.encode()
    length = f"Content-Length: {len(data)}\r\n"
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{HEAD}{length}{head}\r\n".encode() + data


def streamed(*events: object) -> bytes:
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{HEAD}"
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk


def delta(text: str, index: int = 0, reason: str | None = None) -> object:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": reason}
    return {"id": "x", "created": 7, "choices": [choice]}


def test_every_question_is_asked_once_in_every_dialect_streamed_and_not() -> None:
    asks = mixed(questions(), seed=1)
    assert len(asks) == len(questions()) == 240
    kinds = {ask.kind for ask in asks}
    whole = {"prompt", "messages", "list", "input_data", "chat", "completion", "seeded"}
    assert kinds == whole | {f"{kind}, streamed" for kind in whole - {"list", "input_data"}}
    sent = asks[0].sent(7, "127.0.0.1:1")
    assert b"\r\nx-request-id: soak-7\r\n" in sent
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == asks[0].body


def test_however_a_stream_is_cut_into_pieces_it_reads_alike() -> None:
    one = read(streamed(delta("東京", reason="stop")))
    two = read(streamed(delta("東"), delta("京"), delta("", reason="stop")))
    assert one == two
    assert (one.state, one.request_id) == ("answered", "soak-7")
    other = read(streamed(delta("東"), delta("都"), delta("", reason="stop")))
    assert other.answer != one.answer


def test_choices_of_one_stream_are_not_mixed() -> None:
    said = read(
        streamed(delta("a", 0), delta("x", 1), delta("b", 0, "stop"), delta("y", 1, "stop"))
    )
    turned = read(streamed(delta("x", 1), delta("ab", 0, "stop"), delta("y", 1, "stop")))
    assert said.answer == turned.answer


def test_what_ends_early_is_cut() -> None:
    whole = reply("200 OK", '{"output": "a"}')
    assert read(whole).state == "answered"
    assert read(whole[:-3]).state == "cut"
    assert read(b"").state == "cut"
    assert read(streamed(delta("a"))).state == "cut"
    assert read(streamed(delta("a", reason="stop"))[:-6]).state == "cut"


def test_a_refusal_says_when_to_come_again_in_header_and_body() -> None:
    error = {"code": 429, "message": "the server is full", "retry_after": 2}
    body = json.dumps({"error": error})
    good = read(reply("429 Too Many Requests", body, "Retry-After: 2\r\n"))
    assert (good.state, good.status, good.retry_after) == ("refused", 429, True)
    assert not read(reply("429 Too Many Requests", body)).retry_after
    bare = json.dumps({"error": {"code": 429, "message": "full"}})
    assert not read(reply("429 Too Many Requests", bare, "Retry-After: 2\r\n")).retry_after


def test_an_error_within_a_stream_is_the_requests_status() -> None:
    error = {"error": {"code": 503, "message": "the engine died", "retry_after": 2}}
    said = read(streamed(delta("a"), error))
    assert (said.state, said.status, said.text) == ("refused", 503, "the engine died")
    error = {"error": {"code": "rate_limit_exceeded", "status": 429, "message": "full"}}
    assert read(streamed(error)).status == 429  # OpenAI's form
    assert read(reply("500 Oops", "<html>")).state == "wrong"

"""The soak's requests: real questions in every dialect, and how an answer is read and compared.

asks = mixed(questions(), seed=1)
said = read(asks[0], raw)          # of all bytes that came back
said.answer == quiet.answer        # ids and times left out, the pieces of a stream joined
"""

import http.client
import io
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROWS = Path(__file__).resolve().parents[1] / "data" / "japanese_reasoning.jsonl"
LENGTHS = (16, 40, 160)
"""Most new tokens; the last is enough for the whole of most answers."""
VOLATILE = {"id", "created", "object", "model", "system_fingerprint"}
"""Keys that are another's in each reply, or say the same in each event."""

Json = dict[str, Any]
Answer = Mapping[str, Any]
State = Literal["answered", "refused", "wrong", "left", "cut", "silent"]
"""answered: whole, 200; refused: 429 or 503; wrong: any other status; left: the client went away;
cut: the connection ended first; silent: nothing more came within the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    kind: str
    path: str
    body: Any

    def sent(self, number: int, host: str) -> bytes:
        """The request as bytes, under an id that comes back in the reply and in the log."""
        body = json.dumps(self.body, ensure_ascii=False).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nx-request-id: {request_id(number)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came back."""

    state: State
    status: int
    """Of the reply, or of the error that ended its stream; 0 without any."""
    request_id: str = ""
    retry_after: bool = False
    """In the header and the body, or in the event; a client of Azure sees the body alone."""
    answer: Answer | None = None
    text: str = ""
    """The error's sentence."""


def request_id(number: int) -> str:
    return f"soak-{number}"


def questions() -> list[str]:
    lines = ROWS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def mixed(texts: Sequence[str], *, seed: int) -> list[Ask]:
    """Each question once, in the next dialect and a length that is drawn."""
    draw = random.Random(seed)
    asks = []
    for index, text in enumerate(texts):
        makers = (_prompt, _messages, _list, _input_data, _chat, _completion, _seeded)
        make = makers[index % len(makers)]
        ask = make(text, texts[(index * 7 + 1) % len(texts)], draw.choice(LENGTHS), index)
        streams = make is not _list and make is not _input_data and draw.random() < 0.5
        if streams:
            usage = {} if ask.path == "/score" else {"stream_options": {"include_usage": True}}
            body = ask.body | {"stream": True} | usage
            ask = Ask(kind=f"{ask.kind}, streamed", path=ask.path, body=body)
        asks.append(ask)
    return asks


def read(raw: bytes) -> Said:
    """Of all bytes of one reply; `cut` where they are not a whole one."""
    reply = http.client.HTTPResponse(_Bytes(raw))  # type: ignore[arg-type] # needs makefile() only
    try:
        reply.begin()
        body = reply.read()
    except (http.client.HTTPException, OSError, ValueError):
        return Said(state="cut", status=0)
    number = reply.getheader("x-request-id") or ""
    if reply.getheader("Content-Type", "").startswith("text/event-stream"):
        return _streamed(number, body)
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if reply.status == 200 and value is not None:
        answer = folded([value])
        return Said(state="answered", status=200, request_id=number, answer=answer)
    error = value.get("error") if isinstance(value, dict) else None
    return _refused(reply.status, error, number, header=reply.getheader("Retry-After") is not None)


def folded(events: Iterable[Any]) -> Answer:
    """The leaves of all of them by place; texts at one place are joined, as a client would."""
    found: dict[str, Any] = {}
    for event in events:
        for place, leaf in _leaves(event, ""):
            if isinstance(leaf, str) and place in found:
                found[place] += leaf
            else:
                found[place] = leaf
    return found


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        # a stream numbers its choices; they may come in any order, one in each event
        place = f"{place}#{value['index']}" if "index" in value else place
        for name, inner in value.items():
            if name not in VOLATILE:
                yield from _leaves(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{index}]")
    elif value is not None and value != "":
        yield place, value


def _streamed(number: str, body: bytes) -> Said:
    lines = body.decode(errors="replace").split("\n")
    datas = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    try:
        events = [json.loads(data) for data in datas if data != "[DONE]"]
    except ValueError:
        return Said(state="cut", status=200, request_id=number)
    for event in events:
        if error := event.get("error"):
            status = int(error.get("status", error.get("code", 500)))  # the two forms of an error
            return _refused(status, error, number, header=True)
    answer = folded(events)
    whole = any(place.endswith("finish_reason") for place in answer)
    state: State = "answered" if whole else "cut"
    return Said(state=state, status=200, request_id=number, answer=answer)


def _refused(status: int, error: Any, number: str, *, header: bool) -> Said:
    said = error if isinstance(error, dict) else {}
    return Said(
        state="refused" if status in (429, 503) else "wrong",
        status=status,
        request_id=number,
        retry_after=header and said.get("retry_after") is not None,
        text=str(said.get("message", error)),
    )


class _Bytes:
    """What HTTPResponse takes for a socket."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _prompt(text: str, other: str, length: int, index: int) -> Ask:
    return Ask(kind="prompt", path="/score", body={"prompt": text, "max_new_tokens": length})


def _messages(text: str, other: str, length: int, index: int) -> Ask:
    return Ask(
        kind="messages", path="/score", body={"messages": _turns(text), "max_new_tokens": length}
    )


def _list(text: str, other: str, length: int, index: int) -> Ask:
    items = [{"prompt": each, "max_new_tokens": length} for each in (text, other)]
    return Ask(kind="list", path="/score", body=items)


def _input_data(text: str, other: str, length: int, index: int) -> Ask:
    # the reply is the answer's text alone, which comes last
    parameters = {"max_new_tokens": max(LENGTHS), "do_sample": False}
    given = {"input_string": _turns(text), "parameters": parameters}
    return Ask(kind="input_data", path="/score", body={"input_data": given})


def _chat(text: str, other: str, length: int, index: int) -> Ask:
    body = {"messages": _turns(text), "max_tokens": length, "temperature": 0}
    return Ask(kind="chat", path="/v1/chat/completions", body=body)


def _completion(text: str, other: str, length: int, index: int) -> Ask:
    body = {"prompt": text, "max_tokens": length, "temperature": 0}
    return Ask(kind="completion", path="/v1/completions", body=body)


def _seeded(text: str, other: str, length: int, index: int) -> Ask:
    body = {"prompt": text, "max_new_tokens": length, "do_sample": True, "temperature": 0.8}
    return Ask(kind="seeded", path="/score", body=body | {"seed": index})


def _turns(text: str) -> list[Json]:
    return [{"role": "user", "content": text}]

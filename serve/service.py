"""Everything between a request body and its answer, for one loaded model.

    service = Service(kept)
    reply = service.answer(dialect, body, record, gone=client_is_gone)

No HTTP library and no inference server: routes.py has them. No engine: the session has it. It never
raises: refusals and failures are replies too.
"""

import itertools
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from serve import requestlog
from serve.admission import Gone
from serve.answer import Completion
from serve.dialects.parsed import Dialect, Events, Head, Parsed
from serve.engine import EngineError
from serve.errors import RequestError
from serve.kept import Kept
from serve.preparing import Asked, Preparer
from serve.request import GenerationRequest
from serve.requestlog import ErrorKind, Record
from serve.running import Call, Running

log = logging.getLogger("azmlinfsrv.serve")

PING_SECONDS = 10.0
"""A stream without news says so this often, or a proxy on the way would end it."""
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for nobody to answer; only the log sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Status, headers, and the body or what yields it."""

    status: int
    body: "bytes | Stream"
    headers: Mapping[str, str] = field(default_factory=dict)


class Service:
    """Answers requests; shared by the server's threads."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.preparer = Preparer(kept)

    def answer(
        self, dialect: Dialect, body: bytes, record: Record, *, gone: Callable[[], bool]
    ) -> Reply:
        """The reply to one request body; a stream has begun to run when this returns."""
        deadline = time.monotonic() + self._kept.settings.request_seconds
        call = Call(record=record, deadline=deadline, gone=gone)
        try:
            parsed = dialect.parse(body, context=self._kept.model.context)
            # before the prompts are written out: a crowd would take that time from those inside
            self._kept.admission.need_room()
            asked = [self._prepared(request, parsed.batch) for request in parsed.requests]
            self._note(record, parsed, asked)
            if parsed.stream:
                return self._streamed(parsed, asked, call)
            reply = Reply(status=200, body=_json(parsed.reply(self._whole(asked, call))))
            self.end(record, 200)
            return reply
        except Gone:
            self.end(record, CLIENT_CLOSED_REQUEST, "client_gone")
            return Reply(status=CLIENT_CLOSED_REQUEST, body=b"")
        except Exception as error:
            known, kind = _as_request_error(error)
            self.end(record, known.status, kind)
            return refusal(known, dialect)

    def end(self, record: Record, status: int, error: ErrorKind | None = None) -> None:
        """Count and log a request, the first time that it is said to be over."""
        if record.finish(status, error):
            self._kept.metrics.observe(record)
            requestlog.write(record, text=self._kept.settings.log_text)
            requestlog.trace_stream(record)

    def _prepared(
        self, request: GenerationRequest | RequestError, batch: bool
    ) -> Asked | RequestError:
        """In a batch, errors stay where they are; else the first is the answer."""
        try:
            if isinstance(request, RequestError):
                raise request
            return self.preparer.prepare(request)
        except RequestError as error:
            if batch:
                return error
            raise

    def _note(self, record: Record, parsed: Parsed, asked: Sequence[Asked | RequestError]) -> None:
        good = _good(asked)
        record.stream = parsed.stream
        record.model = self._kept.model.name
        record.adapter = next((one.adapter for one in good if one.adapter), None)
        record.n = sum(one.request.n for one in good)
        record.prompt_tokens = sum(len(one.shown.ids) for one in good)
        if self._kept.settings.log_text:
            ids = [token for one in good for token in one.shown.ids]
            record.prompt = self.preparer.writer.read(ids)

    def _whole(
        self, asked: Sequence[Asked | RequestError], call: Call
    ) -> list[Completion | RequestError]:
        """All answers, as many at once as there are places."""
        answers: list[Completion | RequestError] = []
        for wave in _waves(asked, self._kept.admission.places):
            made = iter(self._wave(_good(wave), call))
            answers += [one if isinstance(one, RequestError) else next(made) for one in wave]
        return answers

    def _wave(self, asked: Sequence[Asked], call: Call) -> list[Completion]:
        if not asked:
            return []
        with ExitStack() as stack:
            # A stop text may end an answer early, so there the tokens are looked at as they come.
            whole = not any(one.request.stop for one in asked)
            running = self._started(stack, asked, call, whole=whole)
            for _ in running.deltas():
                pass
        return running.completions()

    def _streamed(self, parsed: Parsed, asked: Sequence[Asked | RequestError], call: Call) -> Reply:
        with ExitStack() as stack:
            running = self._started(stack, _good(asked), call, whole=False)
            held = stack.pop_all()  # the stream gives the places back
        head = Head(
            id=call.record.request_id or uuid.uuid4().hex,
            created=int(time.time()),
            model=call.record.adapter or self._kept.model.name,
        )
        events = self._events(parsed.events(head), running, call.record)
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",  # nginx, as in Azure ML's own images, would keep it back
        }
        return Reply(status=200, body=Stream(events, held, self, call.record), headers=headers)

    def _events(self, events: Events, running: Running, record: Record) -> Iterator[bytes]:
        try:
            yield from map(_event, events.begin())
            quiet = time.monotonic()
            for answer, deltas in running.deltas():
                if answer is not None:
                    for delta in deltas:
                        yield from map(_event, events.delta(answer.index, delta))
                    if answer.finish_reason is not None:
                        choice = answer.choice(answer.index)
                        yield from map(_event, events.end(answer.index, choice))
                if deltas:
                    quiet = time.monotonic()
                elif time.monotonic() - quiet > PING_SECONDS:
                    quiet = time.monotonic()
                    yield b": ping\n\n"
            running.completions()
            yield from map(_event, events.finish(record.prompt_tokens))
            if events.done is not None:
                yield f"data: {events.done}\n\n".encode()
            self.end(record, 200)
        except Gone:
            self.end(record, CLIENT_CLOSED_REQUEST, "client_gone")
        except Exception as error:
            known, kind = _as_request_error(error)
            self.end(record, known.status, kind)
            yield from map(_event, events.error(known))

    def _started(
        self, stack: ExitStack, asked: Sequence[Asked], call: Call, *, whole: bool
    ) -> Running:
        """Wait for the places, then start every answer; leaving the stack gives all back."""
        record, admission = call.record, self._kept.admission
        places = sum(one.request.n for one in asked)
        record.queued = record.queued or time.monotonic()
        stack.enter_context(admission.enter(call.deadline, places=places, gone=call.gone))
        record.admitted = record.admitted or time.monotonic()
        session = stack.enter_context(self._kept.engine.session(whole=whole))
        running = Running(session, asked, call, self._kept, whole=whole)
        index = itertools.count()
        for one in asked:
            for number in range(one.request.n):
                answer = self.preparer.answer(one, index=next(index))
                running.start(one, answer, self.preparer.sampling(one, number))
        return running


class Stream:
    """The body of a streamed reply. Whoever has it must close it, also unread."""

    def __init__(
        self, events: Iterator[bytes], held: ExitStack, service: Service, record: Record
    ) -> None:
        self._events = events
        self._held = held
        self._service = service
        self._record = record

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        """End what runs and give the places back; the client has all, or has left."""
        self._held.close()
        self._service.end(self._record, CLIENT_CLOSED_REQUEST, "client_gone")


def refusal(error: RequestError, dialect: Dialect) -> Reply:
    """The reply that a RequestError stands for."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Reply(status=error.status, body=_json(dialect.error_body(error)), headers=headers)


def _good(asked: Sequence[Asked | RequestError]) -> list[Asked]:
    return [one for one in asked if isinstance(one, Asked)]


def _waves(
    asked: Sequence[Asked | RequestError], places: int
) -> Iterator[list[Asked | RequestError]]:
    """Cut into lists of which each needs no more places than there are."""
    wave: list[Asked | RequestError] = []
    taken = 0
    for one in asked:
        needs = one.request.n if isinstance(one, Asked) else 0
        if wave and taken + needs > places:
            yield wave
            wave, taken = [], 0
        wave.append(one)
        taken += needs
    if wave:
        yield wave


def _as_request_error(error: Exception) -> tuple[RequestError, ErrorKind]:
    """What the client is told, and the kind that is counted."""
    if isinstance(error, RequestError):
        kinds: dict[int, ErrorKind] = {413: "too_large", 429: "full", 503: "deadline"}
        return error, kinds.get(error.status, "invalid")
    if isinstance(error, EngineError):
        status = 400 if error.retry_after is None else 503
        return RequestError(status, str(error), retry_after=error.retry_after), "engine"
    log.error("a request failed", exc_info=error)
    sentence = "the server failed on this request; its log says why."
    return RequestError(500, sentence), "internal"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _event(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode("utf-8", "replace")

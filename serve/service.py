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

from serve import harmony, prompt, requestlog, thinking
from serve.admission import Gone
from serve.answer import Choice, Completion, Delta
from serve.answering import Answer
from serve.dialects.parsed import Dialect, Events, Head, Parsed
from serve.engine import EngineError, Feature, Sampling, Session
from serve.errors import RequestError
from serve.live import Kept
from serve.metrics import Metrics
from serve.reader import Reader
from serve.request import GenerationRequest
from serve.requestlog import ErrorKind, Record

log = logging.getLogger("azmlinfsrv.serve")

LOOK_SECONDS = 0.5
"""How often a request looks whether its client is still there."""
PING_SECONDS = 10.0
"""A stream without news says so this often, or a proxy on the way would end it."""
READ_BEFORE = 8
"""Ids of a raw prompt that decide whether the answer's first word begins with a space."""
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for nobody to answer; only the log sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Status, headers, and the body or what yields it."""

    status: int
    body: "bytes | Stream"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, ready for the engine."""

    request: GenerationRequest
    shown: prompt.Prompt
    adapter: str | None
    plain: bool
    """The answer has no format to be read: after a raw prompt, or within the final channel."""


class Service:
    """Answers requests; shared by the server's threads."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        model = kept.model
        self._writer = prompt.PromptWriter(kept.tokenizer, model.defaults, context=model.context)
        self._markers = harmony.Markers.of(kept.tokenizer.get_vocab())
        self._hidden = thinking.hidden_markers(kept.tokenizer.added_tokens_decoder)
        eos = kept.tokenizer.eos_token_id
        self._stop_ids = self._markers.stops if self._markers else frozenset()
        self._stop_ids |= frozenset(() if eos is None else (eos,))

    @property
    def names(self) -> tuple[str, ...]:
        """What `model` may say: the model's own name first."""
        return (self._kept.model.name, *self._kept.model.adapters)

    def answer(
        self, dialect: Dialect, body: bytes, record: Record, *, gone: Callable[[], bool]
    ) -> Reply:
        """The reply to one request body; a stream has begun to run when this returns."""
        deadline = time.monotonic() + self._kept.settings.request_seconds
        try:
            parsed = dialect.parse(body, context=self._kept.model.context)
            asked = [self._prepared(request, parsed.batch) for request in parsed.requests]
            self._note(record, parsed, asked)
            if parsed.stream:
                return self._streamed(parsed, asked, record, deadline, gone)
            answers = self._whole(asked, parsed.batch, record, deadline, gone)
            reply = Reply(status=200, body=_json(parsed.reply(answers)))
            self._end(record, 200)
            return reply
        except Exception as error:
            return self._failed(error, dialect, record)

    def _failed(self, error: Exception, dialect: Dialect, record: Record) -> Reply:
        if isinstance(error, Gone):
            self._end(record, CLIENT_CLOSED_REQUEST, "client_gone")
            return Reply(status=CLIENT_CLOSED_REQUEST, body=b"")
        known, kind = _as_request_error(error)
        reply = refusal(known, dialect)
        self._end(record, known.status, kind)
        return reply

    def _prepared(
        self, request: GenerationRequest | RequestError, batch: bool
    ) -> Asked | RequestError:
        """Checked against what model and engine can; in a batch, errors stay where they are."""
        try:
            if isinstance(request, RequestError):
                raise request
            adapter = self._adapter(request.model)
            self._refuse_what_the_engine_cannot(request)
            shown = self._writer.write(request)
            plain = not request.messages
            if request.json_schema is not None and self._markers is not None:
                shown, plain = self._writer.open_final(shown), True
            elif request.json_schema is not None and shown.opens_thinking:
                raise RequestError(
                    400,
                    "this model thinks before it answers, and a schema leaves no room for that; "
                    "leave response_format out.",
                    "response_format",
                )
            return Asked(request=request, shown=shown, adapter=adapter, plain=plain)
        except RequestError as error:
            if batch:
                return error
            raise

    def _adapter(self, name: str | None) -> str | None:
        model = self._kept.model
        if name is None:
            return model.default_adapter
        if name == model.name:
            return None
        if name not in model.adapters:
            known = ", ".join(self.names)
            raise RequestError(
                404, f'the model "{name[:64]}" is not served here; known are {known}.', "model"
            )
        return name

    def _refuse_what_the_engine_cannot(self, request: GenerationRequest) -> None:
        features = self._kept.engine.info.features
        wanted: dict[Feature, object] = {
            "top_k": request.top_k,
            "min_p": request.min_p,
            "repetition_penalty": request.repetition_penalty,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "seed": request.seed,
            "logprobs": request.logprobs,
            "top_logprobs": request.logprobs or None,
            "json_schema": request.json_schema,
        }
        for name, value in wanted.items():
            if value is not None and name not in features:
                asked = "response_format" if name == "json_schema" else name
                engine = self._kept.engine.info.version
                raise RequestError(
                    400, f"{asked} is not possible with this server's engine ({engine}).", asked
                )

    def _note(self, record: Record, parsed: Parsed, asked: Sequence[Asked | RequestError]) -> None:
        good = [one for one in asked if isinstance(one, Asked)]
        record.stream = parsed.stream
        record.model = self._kept.model.name
        record.adapter = next((one.adapter for one in good if one.adapter), None)
        record.n = sum(one.request.n for one in good)
        record.prompt_tokens = sum(len(one.shown.ids) for one in good)
        if self._kept.settings.log_text:
            ids = [token for one in good for token in one.shown.ids]
            record.prompt = self._writer.read(ids)

    def _whole(
        self,
        asked: Sequence[Asked | RequestError],
        batch: bool,
        record: Record,
        deadline: float,
        gone: Callable[[], bool],
    ) -> list[Completion | RequestError]:
        """All answers, as many at once as there are places."""
        answers: list[Completion | RequestError] = []
        for wave in _waves(asked, self._kept.admission.places):
            good = [one for one in wave if isinstance(one, Asked)]
            made = iter(self._wave(good, record, deadline, gone))
            answers += [one if isinstance(one, RequestError) else next(made) for one in wave]
        return answers

    def _wave(
        self,
        asked: Sequence[Asked],
        record: Record,
        deadline: float,
        gone: Callable[[], bool],
    ) -> list[Completion]:
        if not asked:
            return []
        with ExitStack() as stack:
            # A stop text may end an answer early, so there the tokens are looked at as they come.
            whole = not any(one.request.stop for one in asked)
            running = self._started(stack, asked, record, deadline, gone, whole=whole)
            for _ in running.deltas():
                pass
        return running.completions(record, self._kept)

    def _streamed(
        self,
        parsed: Parsed,
        asked: Sequence[Asked | RequestError],
        record: Record,
        deadline: float,
        gone: Callable[[], bool],
    ) -> Reply:
        good = [one for one in asked if isinstance(one, Asked)]
        with ExitStack() as stack:
            running = self._started(stack, good, record, deadline, gone, whole=False)
            held = stack.pop_all()  # the stream gives the places back
        head = Head(
            id=record.request_id or uuid.uuid4().hex,
            created=int(time.time()),
            model=record.adapter or self._kept.model.name,
        )
        events = self._events(parsed.events(head), running, record)
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",  # nginx, as in Azure ML's own images, would keep it back
        }
        return Reply(status=200, body=Stream(events, held, self, record), headers=headers)

    def _events(self, events: Events, running: "Running", record: Record) -> Iterator[bytes]:
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
            running.completions(record, self._kept)
            yield from map(_event, events.finish(record.prompt_tokens))
            if events.done is not None:
                yield f"data: {events.done}\n\n".encode()
            self._end(record, 200)
        except Gone:
            self._end(record, CLIENT_CLOSED_REQUEST, "client_gone")
        except Exception as error:
            known, kind = _as_request_error(error)
            self._end(record, known.status, kind)
            yield from map(_event, events.error(known))

    def _started(
        self,
        stack: ExitStack,
        asked: Sequence[Asked],
        record: Record,
        deadline: float,
        gone: Callable[[], bool],
        *,
        whole: bool,
    ) -> "Running":
        """Wait for the places, then start every answer; leaving the stack gives all back."""
        places = sum(one.request.n for one in asked)
        record.queued = record.queued or time.monotonic()
        stack.enter_context(self._kept.admission.enter(deadline, places=places, gone=gone))
        record.admitted = record.admitted or time.monotonic()
        session = stack.enter_context(self._kept.engine.session(whole=whole))
        running = Running(session, asked, record, self._kept.metrics, gone, whole=whole)
        index = itertools.count()
        for one in asked:
            for number in range(one.request.n):
                answer = Answer(
                    index=next(index),
                    reader=self._reader(one),
                    stop_ids=self._stop_ids,
                    texts=self._writer.token_texts,
                )
                running.start(one, answer, self._sampling(one, number), deadline)
        return running

    def _sampling(self, asked: Asked, number: int) -> Sampling:
        request = asked.request
        schema = request.json_schema
        return Sampling(
            max_new_tokens=asked.shown.max_new_tokens,
            do_sample=request.do_sample,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            seed=None if request.seed is None else request.seed + number,
            logprobs=request.logprobs,
            stop_ids=self._stop_ids,
            json_schema=None if schema is None else json.dumps(schema),
            adapter=asked.adapter,
        )

    def _reader(self, asked: Asked) -> Reader:
        request = asked.request
        return Reader(
            decode=self._writer.read,
            markers=self._markers,
            opens_thinking=asked.shown.opens_thinking,
            stop=request.stop,
            tools=bool(request.tools),
            hidden=self._hidden,
            plain=asked.plain,
            before=asked.shown.ids[-READ_BEFORE:] if asked.plain else (),
        )

    def _end(self, record: Record, status: int, error: ErrorKind | None = None) -> None:
        if record.finish(status, error):
            self._kept.metrics.observe(record)
            requestlog.write(record, text=self._kept.settings.log_text)
            requestlog.trace_stream(record)


class Running:
    """The generations of one request, and what has been read of them."""

    def __init__(
        self,
        session: Session,
        asked: Sequence[Asked],
        record: Record,
        metrics: Metrics,
        gone: Callable[[], bool],
        *,
        whole: bool,
    ) -> None:
        self._whole = whole
        self._session = session
        self._metrics = metrics
        self._asked = asked
        self._record = record
        self._gone = gone
        self._answers: dict[int, Answer] = {}

    def start(self, asked: Asked, answer: Answer, sampling: Sampling, deadline: float) -> None:
        number = self._session.start(asked.shown.ids, sampling, deadline=deadline)
        self._answers[number] = answer

    def deltas(self) -> Iterator[tuple[Answer | None, list[Delta]]]:
        """What is new of which answer, until all are whole; (None, []) where nothing is.

        Raises EngineError, and Gone when the client has left.
        """
        looked = time.monotonic()
        while self._session.running:
            pieces = self._session.take(LOOK_SECONDS)
            for piece in pieces:
                answer = self._answers[piece.id]
                self._count(len(piece.ids))
                deltas = answer.feed(piece)
                if answer.finish_reason is not None and piece.id in self._session.running:
                    self._session.cancel(piece.id)  # a stop text was found
                yield answer, deltas
            if not pieces:
                yield None, []
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                if self._gone():
                    raise Gone

    def _count(self, tokens: int) -> None:
        if not self._whole:
            self._record.took(tokens)
            self._metrics.progress(self._record)
            return
        self._record.completion_tokens += tokens
        self._record.first_token = self._session.first_token
        self._record.last_token = time.monotonic()

    def completions(self, record: Record, kept: Kept) -> list[Completion]:
        """One per request, and their counts into the record."""
        answers = iter(self._answers.values())
        made = []
        for one in self._asked:
            choices = [next(answers).choice(index) for index in range(one.request.n)]
            made.append(_completion(one, choices, record, kept))
        choices = [choice for completion in made for choice in completion.choices]
        record.finish_reasons += [choice.finish_reason for choice in choices]
        record.reasoning_tokens += sum(choice.reasoning_tokens for choice in choices)
        if kept.settings.log_text:
            record.output = "\n\n".join(choice.output for choice in choices)
        return made


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
        self._service._end(self._record, CLIENT_CLOSED_REQUEST, "client_gone")


def refusal(error: RequestError, dialect: Dialect) -> Reply:
    """The reply that a RequestError stands for."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Reply(status=error.status, body=_json(dialect.error_body(error)), headers=headers)


def _completion(asked: Asked, choices: Sequence[Choice], record: Record, kept: Kept) -> Completion:
    return Completion(
        id=record.request_id or uuid.uuid4().hex,
        created=int(time.time()),
        model=asked.adapter or kept.model.name,
        prompt_tokens=len(asked.shown.ids),
        choices=choices,
    )


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

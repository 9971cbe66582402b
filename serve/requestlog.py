"""One Record per request, its line in the log, and its figures on the inference server's spans.

    join_spans()                    # once, in init(): Application Insights, where that is on
    record = begin("/score")        # in a request; the service fills it as it goes along
    if record.finish(200):          # once, whoever comes first
        metrics.observe(record); write(record, text=False); trace_stream(record)

The line is JSON after the server's own prefix (`… azmlinfsrv.serve.request - {…}`). It has no text
of the request or the answer unless asked for, and never a header or a key. metrics.py counts.
"""

import json
import logging
import time
from dataclasses import dataclass, field
from typing import Literal

from flask import g, has_request_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.util.types import AttributeValue

# Below azmlinfsrv, the only logger that the inference server prints; a name of its own, so that a
# logging.json in AML_APP_ROOT can give these lines another format or place.
log = logging.getLogger("azmlinfsrv.serve.request")

TEXT_LIMIT = 1000
"""Characters of prompt and of output in a line; container logs cut lines at 16 KiB."""

ErrorKind = Literal[
    "invalid",
    "unauthorized",
    "too_large",
    "full",
    "draining",
    "deadline",
    "client_gone",
    "engine",
    "internal",
]


@dataclass(slots=True, kw_only=True)
class Record:
    """What is known of one request, filled as it goes along. Times are time.monotonic()."""

    request_id: str
    client_request_id: str = ""
    route: str
    """The rule, such as /v1/chat/completions; never a path that a client made up."""
    model: str | None = None
    """The served name, once it is found; never what the request said."""
    adapter: str | None = None
    stream: bool = False
    n: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Of all choices. `took` adds to it; where one piece holds a whole answer, add here instead."""
    reasoning_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    """One per choice."""
    status: int = 0
    error: ErrorKind | None = None
    prompt: str | None = field(default=None, repr=False)
    """For the log, where it shows text."""
    output: str | None = field(default=None, repr=False)
    started: float = field(default_factory=time.monotonic)
    queued: float | None = None
    """Asked for a place."""
    admitted: float | None = None
    """Got it."""
    first_token: float | None = None
    last_token: float | None = None
    finished: float | None = None
    first_count: int = 0
    """Tokens that came together with the first."""
    counted: int = 0
    """Generated tokens that Metrics has counted already."""
    server_span: trace.SpanContext | None = None
    """The inference server's span, where it began before the answer was finished: a stream."""

    def took(self, tokens: int) -> None:
        """New tokens just came. Not for a whole answer in one piece: it tells no first token."""
        if not tokens:
            return
        self.last_token = time.monotonic()
        if self.first_token is None:
            self.first_token = self.last_token
            self.first_count = tokens
        self.completion_tokens += tokens

    def finish(self, status: int, error: ErrorKind | None = None) -> bool:
        """Nothing more will happen; False where that was said before, and then nothing changes."""
        if self.finished is not None:
            return False
        self.finished = time.monotonic()
        self.status = status
        self.error = error
        return True

    @property
    def queue_seconds(self) -> float | None:
        """Waiting for a place, in vain perhaps."""
        until = self.finished if self.admitted is None else self.admitted
        return _between(self.queued, until)

    @property
    def first_token_seconds(self) -> float | None:
        """From the request's start."""
        return _between(self.started, self.first_token)

    @property
    def total_seconds(self) -> float | None:
        return _between(self.started, self.finished)

    @property
    def seconds_per_token(self) -> float | None:
        """Between two tokens of one choice, on average; choices come side by side."""
        later = self.completion_tokens - self.first_count
        seconds = _between(self.first_token, self.last_token)
        return None if seconds is None or later <= 0 else seconds * self.n / later

    @property
    def tokens_per_second(self) -> float | None:
        """Of all choices together, from the place to the end; prompt processing is in it."""
        seconds = _between(self.admitted, self.finished)
        return self.completion_tokens / seconds if seconds and self.completion_tokens else None

    @property
    def span_attributes(self) -> dict[str, AttributeValue]:
        """OpenTelemetry's names for generative AI; it has none for latency, so there vLLM's."""
        known: dict[str, AttributeValue | None] = {
            "gen_ai.operation.name": "text_completion"
            if self.route == "/v1/completions"
            else "chat",
            "gen_ai.request.model": self.model,
            "gen_ai.request.choice.count": self.n if self.n > 1 else None,
            "gen_ai.usage.input_tokens": self.prompt_tokens,
            "gen_ai.usage.output_tokens": self.completion_tokens,
            "gen_ai.response.finish_reasons": self.finish_reasons or None,
            "gen_ai.latency.time_in_queue": self.queue_seconds,
            "gen_ai.latency.time_to_first_token": self.first_token_seconds,
            "gen_ai.latency.e2e": self.total_seconds,
            "homeport.error": self.error,  # error.type never arrives: Azure's exporter drops it
        }
        return {name: value for name, value in known.items() if value is not None}


def begin(route: str) -> Record:
    """The record of the request under way, with the ids that the inference server gave it."""
    g.homeport_record = record = Record(
        request_id=g.get("request_id", ""),
        client_request_id=g.get("client_request_id", ""),
        route=route,
    )
    return record


def write(record: Record, *, text: bool) -> None:
    """Log a finished request as one line; `text` adds prompt and output, cut to TEXT_LIMIT."""
    rate = record.tokens_per_second
    line: dict[str, object] = {
        "request_id": record.request_id,
        "client_request_id": record.client_request_id,
        "route": record.route,
        "status": record.status,
        "error": record.error,
        "model": record.model,
        "adapter": record.adapter,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "reasoning_tokens": record.reasoning_tokens,
        "queue_ms": _milliseconds(record.queue_seconds),
        "first_token_ms": _milliseconds(record.first_token_seconds),
        "total_ms": _milliseconds(record.total_seconds),
        "tokens_per_s": None if rate is None else round(rate, 1),
        "finish_reason": ",".join(dict.fromkeys(record.finish_reasons)) or None,
        "stream": record.stream,
        "n": record.n,
        "client_gone": record.error == "client_gone",
    }
    if text:
        line["prompt"] = _cut(record.prompt)
        line["output"] = _cut(record.output)
    log.info("%s", json.dumps(line))  # ASCII, so that no text can break the line


class _Spans(SpanProcessor):
    """The server opens its span after the view has returned, and closes it within microseconds."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        record: Record | None = g.get("homeport_record") if has_request_context() else None
        if record is None:
            return
        if record.finished is None:
            record.server_span = span.context
        else:
            span.set_attributes(record.span_attributes)


def join_spans() -> bool:
    """Put each record on the server's own span of that request; False where it makes none."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return False
    provider.add_span_processor(_Spans())
    # The server sets "Response Value" to None where it logs no responses: a warning per request.
    logging.getLogger("opentelemetry.attributes").setLevel(logging.ERROR)
    return True


def trace_stream(record: Record) -> None:
    """A span for a finished stream, below the server's own, which ended before the first token."""
    if record.server_span is None or record.finished is None:
        return
    ended = time.time_ns() - int((time.monotonic() - record.finished) * 1e9)
    started = ended - int((record.finished - record.started) * 1e9)
    attributes = {"Request Id": record.request_id, **record.span_attributes}
    tracer = trace.get_tracer("homeport.serve")
    tracer.start_span(
        f"{attributes['gen_ai.operation.name']} {record.model or ''}".rstrip(),
        trace.set_span_in_context(trace.NonRecordingSpan(record.server_span)),
        attributes=attributes,
        start_time=started,
    ).end(ended)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "…"

"""Prometheus metrics of the server, from the same Record that the request log writes.

    metrics = Metrics(load=lambda: admission.load, engine=lambda: (True, 0))
    metrics.progress(record)       # while tokens come, if the rate is to be live
    metrics.observe(record)        # once, when it is finished
    body, content_type = metrics.text()

An instance has its own registry and nothing is global, so it outlives a reload of the code around
it; `load` and `engine` may be set anew then. Every label comes from a closed list. No HTTP here.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from serve.requestlog import ErrorKind, Record

ROUTES = (
    "/score",
    "/v1/chat/completions",
    "/v1/completions",
    "/chat/completions",
    "/completions",
    "/openai/v1/chat/completions",
    "/openai/v1/completions",
    "/openai/deployments/{deployment}/chat/completions",
    "/openai/deployments/{deployment}/completions",
)
STATUSES = ("2xx", "4xx", "5xx")
FINISH_REASONS = ("stop", "length", "tool_calls", "deadline", "cancelled")
OTHER = "other"
"""Stands for what is in none of the lists."""
RATE_SECONDS = 10
REQUEST_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 20, 30, 60, 120, 180),
)
"""Seconds, to Azure's longest request."""
TOKEN_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 10),
)


class Metrics:
    """Counts requests; shared by the server's threads."""

    def __init__(
        self, *, load: Callable[[], tuple[int, int]], engine: Callable[[], tuple[bool, int]]
    ) -> None:
        self.load = load
        """(running, waiting) at this moment."""
        self.engine = engine
        """(up, restarts so far)."""
        # else each series has a second one, the time of its birth
        disable_created_metrics()  # type: ignore[no-untyped-call] # theirs has no types
        self._registry = registry = CollectorRegistry()
        registry.register(_Now(self))
        self._requests = Counter(
            "homeport_requests",
            "Finished requests, by route and class of HTTP status.",
            ["route", "status"],
            registry=registry,
        )
        self._answers = Counter(
            "homeport_answers",
            "Answers (choices) given, by what ended them.",
            ["finish_reason"],
            registry=registry,
        )
        self._errors = Counter(
            "homeport_request_errors",
            "Requests that got no whole answer, by kind of error.",
            ["kind"],
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "homeport_prompt_tokens",
            "Prompt tokens of requests that got a place.",
            registry=registry,
        )
        self._generated_tokens = Counter(
            "homeport_generation_tokens", "Tokens generated.", registry=registry
        )
        self._duration = Histogram(
            "homeport_request_duration_seconds",
            "From arrival to the last byte, of requests that got a place.",
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._queue = Histogram(
            "homeport_request_queue_seconds",
            "Waiting for a place, of requests that were let into the line.",
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._first_token = Histogram(
            "homeport_time_to_first_token_seconds",
            "From arrival to the first token, the wait for a place included.",
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._per_token = Histogram(
            "homeport_time_per_output_token_seconds",
            "Average between two tokens of one answer, one value per request.",
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        for route in ROUTES:  # a series that starts at 0 shows its first increase
            for status in STATUSES:
                self._requests.labels(route, status)
        for reason in FINISH_REASONS:
            self._answers.labels(reason)
        for kind in get_args(ErrorKind):
            self._errors.labels(kind)
        self._lock = threading.Lock()
        self._recent: dict[int, int] = {}  # second → tokens; old seconds are dropped on writing

    def progress(self, record: Record) -> None:
        """Count the tokens that came since the last call for this record."""
        new = record.completion_tokens - record.counted
        if new <= 0:
            return
        record.counted += new
        self._generated_tokens.inc(new)
        second = int(time.monotonic())
        with self._lock:
            if second not in self._recent:
                self._recent = {k: v for k, v in self._recent.items() if k > second - RATE_SECONDS}
            self._recent[second] = self._recent.get(second, 0) + new

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        self.progress(record)
        status = _listed(f"{record.status // 100}xx", STATUSES)
        self._requests.labels(_listed(record.route, ROUTES), status).inc()
        for reason in record.finish_reasons:
            self._answers.labels(_listed(reason, FINISH_REASONS)).inc()
        if record.error is not None:
            self._errors.labels(_listed(record.error, get_args(ErrorKind))).inc()
        if record.error != "full":  # refused at once, it never waited
            _add(self._queue, record.queue_seconds)
        if record.admitted is not None:  # refusals are quick, and would flatter the others
            self._prompt_tokens.inc(record.prompt_tokens)
            _add(self._duration, record.total_seconds)
            _add(self._first_token, record.first_token_seconds)
            _add(self._per_token, record.seconds_per_token)

    def tokens_per_second(self) -> float:
        """Generated over the last ten whole seconds, for people; Prometheus has rate()."""
        now = int(time.monotonic())
        with self._lock:
            recent = sum(v for k, v in self._recent.items() if now - RATE_SECONDS <= k < now)
        return recent / RATE_SECONDS

    def text(self) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4


class _Now(Collector):
    """What is asked for when it is wanted, instead of counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        running, waiting = self._metrics.load()
        up, restarts = self._metrics.engine()
        rate = self._metrics.tokens_per_second()
        for name, text, value in (
            ("homeport_requests_running", "Requests that generate now.", running),
            ("homeport_requests_waiting", "Requests that wait for a place now.", waiting),
            ("homeport_engine_up", "1 while the engine's process is ready, else 0.", up),
            ("homeport_generation_tokens_per_second", "Generated in the last 10 s.", rate),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        yield CounterMetricFamily(
            "homeport_engine_restarts", "Times that the engine was started anew.", value=restarts
        )


def _listed(value: str, known: tuple[str, ...]) -> str:
    return value if value in known else OTHER


def _add(histogram: Histogram, seconds: float | None) -> None:
    if seconds is not None:
        histogram.observe(seconds)

"""Counting, read back the way Prometheus reads it."""

import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import OTHER, Metrics
from serve.requestlog import ErrorKind, Record


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(load=lambda: (3, 7), engine=lambda: (True, 2))


def answered(**more: object) -> Record:
    """20 tokens: the first after 0.5 s, of which 0.2 s in line; the last 1.9 s later."""
    record = Record(request_id="r", route="/score", started=100.0, prompt_tokens=11)
    record.queued, record.admitted, record.first_token, record.last_token = 100, 100.2, 100.5, 102.4
    record.first_count, record.completion_tokens, record.finish_reasons = 1, 20, ["stop"]
    record.status, record.finished = 200, 103.0
    for name, value in more.items():
        setattr(record, name, value)
    return record


def series(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """{(name, label value, …): value}, as a Prometheus parser understands the text."""
    body, _ = metrics.text()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def documented(metrics: Metrics) -> Iterator[tuple[str, str]]:
    for family in text_string_to_metric_families(metrics.text()[0].decode()):
        yield family.name, family.documentation


def test_what_is_true_now_is_asked_for_when_it_is_read(metrics: Metrics) -> None:
    first = series(metrics)
    metrics.load = lambda: (1, 0)
    metrics.engine = lambda: (False, 3)
    second = series(metrics)
    assert [first[("homeport_requests_running",)], first[("homeport_requests_waiting",)]] == [3, 7]
    assert [first[("homeport_engine_up",)], first[("homeport_engine_restarts_total",)]] == [1, 2]
    assert [second[("homeport_requests_running",)], second[("homeport_engine_up",)]] == [1, 0]


def test_a_finished_request_is_in_every_count(metrics: Metrics) -> None:
    metrics.observe(answered())
    seen = series(metrics)
    assert seen[("homeport_requests_total", "/score", "2xx")] == 1
    assert seen[("homeport_answers_total", "stop")] == 1
    assert seen[("homeport_prompt_tokens_total",)] == 11
    assert seen[("homeport_generation_tokens_total",)] == 20
    assert seen[("homeport_request_duration_seconds_sum",)] == pytest.approx(3.0)
    assert seen[("homeport_request_queue_seconds_sum",)] == pytest.approx(0.2)
    assert seen[("homeport_time_to_first_token_seconds_sum",)] == pytest.approx(0.5)
    assert seen[("homeport_time_per_output_token_seconds_sum",)] == pytest.approx(0.1)
    slower = ("homeport_time_per_output_token_seconds_bucket", "0.075")
    assert (seen[slower], seen[(slower[0], "0.15")]) == (0, 1)


def test_tokens_counted_on_the_way_are_not_counted_again(metrics: Metrics) -> None:
    record = answered(completion_tokens=8)
    metrics.progress(record)
    record.completion_tokens = 20
    metrics.progress(record)
    metrics.observe(record)
    assert series(metrics)[("homeport_generation_tokens_total",)] == 20


def test_the_rate_is_over_the_last_ten_seconds(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rate_at(now: float) -> float:
        monkeypatch.setattr(time, "monotonic", lambda: now)
        return metrics.tokens_per_second()

    assert rate_at(50.0) == 0
    metrics.progress(answered(completion_tokens=200))
    assert rate_at(58.0) == 20
    metrics.progress(answered(completion_tokens=100))
    assert [rate_at(now) for now in (59.0, 60.9, 61.0, 69.0)] == [30, 30, 10, 0]


@pytest.mark.parametrize(
    ("error", "status", "admitted"),
    [
        ("invalid", 400, False),
        ("full", 429, False),
        ("deadline", 503, False),
        ("client_gone", 499, True),
        ("engine", 500, True),
    ],
)
def test_an_error_is_counted_by_its_kind(
    metrics: Metrics, error: ErrorKind, status: int, admitted: bool
) -> None:
    record = Record(request_id="r", route="/v1/completions")
    if error != "invalid":
        record.queued = record.started
    if admitted:
        record.admitted = record.started
    record.finish(status, error)
    metrics.observe(record)
    seen = series(metrics)
    assert seen[("homeport_request_errors_total", error)] == 1
    assert seen[("homeport_requests_total", "/v1/completions", f"{status // 100}xx")] == 1
    assert seen[("homeport_request_duration_seconds_count",)] == admitted
    waited = error not in ("invalid", "full")
    assert seen[("homeport_request_queue_seconds_count",)] == waited


def test_made_up_names_make_no_series_of_their_own(metrics: Metrics) -> None:
    for made_up in ("one", "two"):
        metrics.observe(answered(route=f"/{made_up}", finish_reasons=[made_up], error=made_up))
    seen = series(metrics)
    assert seen[("homeport_requests_total", OTHER, "2xx")] == 2
    assert seen[("homeport_answers_total", OTHER)] == 2
    assert seen[("homeport_request_errors_total", OTHER)] == 2


def test_two_instances_share_nothing(metrics: Metrics) -> None:
    other = Metrics(load=lambda: (0, 0), engine=lambda: (True, 0))
    metrics.observe(answered())
    assert series(other)[("homeport_generation_tokens_total",)] == 0


def test_every_name_is_ours_and_explained_and_nothing_is_there_twice(metrics: Metrics) -> None:
    metrics.observe(answered())
    families = dict(documented(metrics))
    assert all(name.startswith("homeport_") and text for name, text in families.items())
    assert not [name for name, *_ in series(metrics) if name.endswith("_created")]
    assert metrics.text()[1].startswith("text/plain; version=0.0.4")


def test_observing_a_request_costs_less_than_a_tenth_of_a_millisecond(metrics: Metrics) -> None:
    """It takes some 10 µs; the rest of the allowance is for a busy machine."""
    records = [answered() for _ in range(2000)]
    best = float("inf")
    for batch in range(0, 2000, 200):
        start = time.perf_counter()
        for record in records[batch : batch + 200]:
            metrics.observe(record)
        best = min(best, (time.perf_counter() - start) / 200)
    assert best < 100e-6

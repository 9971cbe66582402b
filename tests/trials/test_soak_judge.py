"""The soak's verdict, from made-up sights of which each has one thing wrong."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trials.soak_asks import Ask, Said
from trials.soak_judge import Fault, Seen, counters, judge
from trials.soak_load import Outcome

ASKS = [Ask(kind="prompt", path="/score", body={"prompt": text}) for text in "ab"]
ANSWERS = [{".output": "A"}, {".output": "B"}]
ENGINE, WORKER, STOPPED = 100.0, 200.0, 300.0


def answered(number: int, ask: int, phase: str, at: float, seconds: float = 1.0) -> Outcome:
    answer = ANSWERS[ask]
    said = Said(state="answered", status=200, request_id=f"soak-{number}", answer=answer)
    return outcome(number, ask, phase, at, said, seconds)


def outcome(
    number: int, ask: int, phase: str, at: float, said: Said, seconds: float = 1.0
) -> Outcome:
    ended = at + seconds
    return Outcome(number=number, ask=ask, phase=phase, started=at, sent=at, ended=ended, said=said)


def refusal(status: int, text: str = "full") -> Said:
    return Said(state="refused", status=status, retry_after=True, text=text)


def line(number: int, status: int) -> str:
    record = json.dumps({"request_id": f"soak-{number}", "status": status})
    return f"2026-11-22 09:00:00,000 I [7] azmlinfsrv.serve.request - {record}\n"


def good() -> Seen:
    """A run without a fault: two quiet answers, and each phase with what belongs to it."""
    cut = Said(state="cut", status=0)
    outcomes = [
        answered(1, 0, "quiet", 1),
        answered(2, 1, "quiet", 3),
        answered(3, 0, "load", 10),
        outcome(4, 1, "load", 10, Said(state="left", status=0)),
        outcome(5, 1, "overload", 50, refusal(429)),
        outcome(6, 1, "engine killed", ENGINE - 1, refusal(503, "the engine died"), 2),
        answered(7, 1, "engine killed", ENGINE + 2),
        outcome(8, 0, "worker killed", WORKER - 1, cut, 2),
        outcome(
            9, 0, "worker killed", WORKER + 1, refusal(503, "the model is loading, 3 s so far")
        ),
        answered(10, 0, "worker killed", WORKER + 5),
        answered(11, 1, "stopped", STOPPED - 2, 4),
        outcome(12, 1, "stopped", STOPPED + 1, cut),
    ]
    log = "the engine died of signal 9; starting\nthe engine is ready again\n"
    log += "Worker (pid:7) was sent SIGKILL!\nBooting worker with pid: 8\n"
    ends = {1: 200, 2: 200, 3: 200, 4: 499, 5: 429, 6: 503, 7: 200, 10: 200, 11: 200}
    log += "".join(line(number, status) for number, status in ends.items())
    probes = [(path, at / 5, 0.01, 200) for at in range(1500) for path in ("/", "/livez")]
    probes = [one for one in probes if not WORKER < one[1] < WORKER + 4]
    before = {("/score", "2xx"): 2.0, ("/score", "4xx"): 2.0, ("/score", "5xx"): 1.0}
    return Seen(
        asks=ASKS,
        outcomes=outcomes,
        probes=probes,
        memory=[(float(at), 200 * 2**20, 300 * 2**20) for at in range(-200, 300)],
        log=log,
        engine_killed=ENGINE,
        worker_killed=WORKER,
        stopped=STOPPED,
        stop_seconds=4.0,
        exit_code=0,
        warm=-180.0,
        counted=[(5.0, 150.0, before), (WORKER, 250.0, {("/score", "2xx"): 1.0})],
        faults=[Fault(name="x", expected="400", said="400 no", met=True)],
    )


def missed(seen: Seen) -> list[str]:
    return [row.name for row in judge(seen) if row.met is False]


def test_a_run_without_a_fault_meets_every_row() -> None:
    rows = judge(good())
    assert missed(good()) == []
    assert sum(row.met is True for row in rows) >= 20


def change(number: int, **fields: Any) -> Callable[[Seen], None]:
    def make(seen: Seen) -> None:
        seen.outcomes[number - 1] = replace(seen.outcomes[number - 1], **fields)

    return make


def said(number: int, **fields: Any) -> Callable[[Seen], None]:
    def make(seen: Seen) -> None:
        one = seen.outcomes[number - 1]
        seen.outcomes[number - 1] = replace(one, said=replace(one.said, **fields))

    return make


def put(**fields: Any) -> Callable[[Seen], None]:
    def make(seen: Seen) -> None:
        for name, value in fields.items():
            setattr(seen, name, value)

    return make


def log(old: str, new: str) -> Callable[[Seen], None]:
    def make(seen: Seen) -> None:
        assert old in seen.log
        seen.log = seen.log.replace(old, new)

    return make


def leak(column: int) -> Callable[[Seen], None]:
    def make(seen: Seen) -> None:
        seen.memory = [
            (at, rest + (column == 1) * int(at) * 2**17, engine + (column == 2) * int(at) * 2**17)
            for at, rest, engine in seen.memory
        ]

    return make


@pytest.mark.parametrize(
    ("wrong", "row"),
    [
        (said(3, answer=ANSWERS[1]), "answers unlike the quiet server's"),
        (said(3, request_id="soak-7"), "answers under another request's id"),
        (said(4, state="silent"), "requests without an end"),
        (log(line(3, 200), ""), "not exactly once in the server's log"),
        (log(line(3, 200), line(3, 200) * 2), "not exactly once in the server's log"),
        (log(line(3, 200), line(3, 499)), "not exactly once in the server's log"),
        (log(line(5, 429), ""), "not exactly once in the server's log"),
        (change(4, said=Said(state="answered", status=200)), "/metrics less the clients' count"),
        (put(counted=[(5.0, 150.0, {("/score", "2xx"): 2.0})]), "/metrics less the clients' count"),
        (change(5, phase="load"), "not answered, without a reason"),
        (said(5, retry_after=False), "refusals without Retry-After"),
        (said(5, state="wrong", status=500), "not answered, without a reason"),
        (change(8, ended=WORKER - 0.5), "not answered, without a reason"),
        (change(6, ended=ENGINE - 0.5), "not answered, without a reason"),
        (put(probes=[(p, t / 5, 0.15, 200) for t in range(1500) for p in ("/",)]), "GET /, p99"),
        (put(engine_killed=-300.0), "kill -9 of the engine, until it answers"),
        (log("ready again", "ready"), "kill -9 of the engine, said in the log"),
        (log("SIGKILL", "?"), "kill -9 of the worker, said in the log"),
        (leak(1), "memory of the request handling, growth"),
        (leak(2), "memory of the engine, growth"),
        (said(11, state="cut", status=0), "SIGTERM: of those not answered whole"),
        (log(line(11, 200), ""), "SIGTERM: requests under way or in line"),
        (put(exit_code=None), "SIGTERM: exit code"),
        (put(faults=[Fault(name="x", expected="400", said="500", met=False)]), "faults"),
    ],
)
def test_one_thing_wrong_misses_its_row(wrong: Callable[[Seen], None], row: str) -> None:
    seen = good()
    wrong(seen)
    assert any(name.startswith(row) for name in missed(seen)), missed(seen)


def test_growth_in_the_first_minutes_of_a_short_run_is_shown_and_not_judged() -> None:
    seen = good()
    leak(2)(seen)
    seen.warm = 0.0
    assert not missed(seen)
    assert "memory of the engine, growth" in [row.name for row in judge(seen)]


def test_a_seeded_answer_may_be_drawn_otherwise_but_is_no_other_questions() -> None:
    seen = good()
    seen.asks = [replace(ask, kind="seeded, streamed") for ask in ASKS]
    said(3, answer={".output": "drawn"})(seen)
    assert missed(seen) == []
    said(3, answer=ANSWERS[1])(seen)
    assert missed(seen) == ["answers unlike the quiet server's"]


def test_a_client_that_went_before_its_request_was_read_is_counted_nowhere() -> None:
    seen = good()
    log(line(4, 499), "")(seen)
    seen.counted[0] = (5.0, 150.0, {**seen.counted[0][2], ("/score", "4xx"): 1.0})
    assert missed(seen) == []


def test_probes_that_are_refused_after_the_worker_is_back_are_a_fault() -> None:
    seen = good()
    seen.probes.append(("/", WORKER + 30, 2.0, 0))
    assert "GET /, not 200" in missed(seen)


def test_counters_are_read_by_route_and_class() -> None:
    page = (
        '# TYPE homeport_requests counter\nhomeport_requests_total{route="/score",status="2xx"} 3\n'
    )
    assert counters(page + "other 4\n") == {("/score", "2xx"): 3.0}

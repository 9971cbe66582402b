"""What the soak saw → its table. Pure: no server, no clock.

    rows = judge(seen)

Each row is a count of what must not be, or a figure with the bound that it is held against.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, quantiles

from prometheus_client.parser import text_string_to_metric_families

from bench.table import Result
from trials.soak_asks import Ask
from trials.soak_load import Outcome
from trials.soak_probe import Probe
from trials.table import row

LINE = re.compile(r"azmlinfsrv\.serve\.request - (\{.*\})")
LOADING = "the model is loading"
"""How the 503 begins that the server gives before it counts requests."""
LIVENESS_MS = 100.0
RECOVERY_SECONDS = 300.0
"""Azure ML restarts a container after 30 failed probes, 10 s apart."""
GROWTH_MIB = 2.0
"""A minute, after the warm-up: below what one leaked answer of 100 KiB in each second would be."""
LEAST_WINDOW = 240.0
"""Seconds of samples from which a growth can be told from the first minutes', in which the engine's
working memory reaches its size (after 3 minutes of load as large as after 10)."""
MIB = 2**20

Counted = Mapping[tuple[str, str], float]
"""Requests by route and class of status, as /metrics has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that went wrong on purpose, and what came of it."""

    name: str
    expected: str
    said: str
    met: bool


@dataclass(kw_only=True, slots=True)
class Seen:
    """All of it, as it was."""

    asks: Sequence[Ask] = ()
    outcomes: list[Outcome] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    memory: list[tuple[float, int, int]] = field(default_factory=list)
    """When, bytes of request handling, bytes of the engine."""
    log: str = ""
    engine_killed: float = 0.0
    worker_killed: float = 0.0
    stopped: float = 0.0
    """When SIGTERM was sent."""
    stop_seconds: float = 0.0
    exit_code: int | None = None
    warm: float = 0.0
    """From when memory should be flat."""
    counted: list[tuple[float, float, Counted]] = field(default_factory=list)
    """Spans of one worker's life, at whose ends nothing was under way: from, until, what /metrics
    grew by."""
    faults: list[Fault] = field(default_factory=list)


def judge(seen: Seen) -> list[Result]:
    return [
        *_answers(seen),
        *_states(seen),
        *_refusals(seen),
        *_liveness(seen),
        *_recoveries(seen),
        *_memory(seen),
        *_stop(seen),
        *_faults(seen.faults),
    ]


def counters(text: str) -> dict[tuple[str, str], float]:
    """homeport_requests_total of a /metrics page."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "homeport_requests_total":
                found[sample.labels["route"], sample.labels["status"]] = sample.value
    return found


def lines(log: str) -> dict[str, list[int]]:
    """Statuses of the server's lines about each request, by its id."""
    found: dict[str, list[int]] = defaultdict(list)
    for match in LINE.finditer(log):
        line = json.loads(match[1])
        found[line["request_id"]].append(line["status"])
    return found


def _answers(seen: Seen) -> list[Result]:
    quiet = {one.ask: one.said.answer for one in seen.outcomes if one.phase == "quiet"}
    answered = [
        one for one in seen.outcomes if one.said.state == "answered" and one.phase != "quiet"
    ]
    wrong = others = drawn = 0
    texts = {ask: json.dumps(answer, sort_keys=True) for ask, answer in quiet.items()}
    asked = Counter(texts.values())
    for one in answered:
        others += one.said.request_id != one.id
        if one.said.answer == quiet[one.ask]:
            continue
        # a batch sums in another order, and a draw at the edge of two tokens then falls otherwise
        text = json.dumps(one.said.answer, sort_keys=True)
        if seen.asks[one.ask].kind.startswith("seeded") and text not in asked:
            drawn += 1
        else:
            wrong += 1
    different = len(asked)
    return [
        row("requests", len(seen.outcomes), "", None),
        row("answered whole, under load", len(answered), "", ">= 1", met=bool(answered)),
        row("different requests", len(quiet), f"with {different} different answers", None),
        row("answers unlike the quiet server's", wrong, "", "0", met=not wrong),
        row("seeded answers drawn otherwise than alone", drawn, "at a temperature of 0.8"),
        row("answers under another request's id", others, "", "0", met=not others),
    ]


def _states(seen: Seen) -> list[Result]:
    """Every request ends once, for its client, in the log and in /metrics alike."""
    said = lines(seen.log)
    lost = sum(not _consistent(seen, one, said.get(one.id, [])) for one in seen.outcomes)
    silent = sum(one.said.state == "silent" for one in seen.outcomes)
    off = sum(_off(seen, said, *span) for span in seen.counted)
    counted = sum(sum(span[2].values()) for span in seen.counted)
    return [
        row("requests without an end", silent, "", "0", met=not silent),
        row("not exactly once in the server's log", lost, "", "0", met=not lost),
        row("/metrics less the clients' count", off, f"of {counted:,.0f}", "0", met=not off),
    ]


def _consistent(seen: Seen, one: Outcome, statuses: list[int]) -> bool:
    state = one.said.state
    if state in ("answered", "wrong") or (state == "refused" and not _loading(one)):
        return statuses == [one.said.status]
    if state == "cut":  # lost with its worker, or refused by a server that had stopped
        return not statuses or _around(one, seen.worker_killed, _back(seen, seen.worker_killed))
    return len(statuses) <= 1


def _loading(one: Outcome) -> bool:
    return one.said.text.startswith(LOADING)


def _off(
    seen: Seen, said: Mapping[str, list[int]], since: float, until: float, counted: Counted
) -> float:
    """By how many requests the two counts cannot both be right."""
    sure: Counter[tuple[str, str]] = Counter()
    left: Counter[str] = Counter()
    for one in seen.outcomes:
        if not since <= one.started <= until or _loading(one):
            continue
        route = seen.asks[one.ask].path
        if one.said.status:
            sure[route, f"{one.said.status // 100}xx"] += 1
        elif one.said.state == "left" and one.id in said:  # else it went before it was read
            left[route] += 1
    off = 0.0
    routes = {route for route, _ in counted} | set(left) | {route for route, _ in sure}
    for route in routes:
        over = {
            status: counted.get((route, status), 0) - sure[route, status]
            for status in ("2xx", "4xx", "5xx")
        }
        off += sum(-value for value in over.values() if value < 0)
        # a client that left may have been counted as any of them, but once
        off += abs(sum(value for value in over.values() if value > 0) - left[route])
    return off


def _refusals(seen: Seen) -> list[Result]:
    refused = [one for one in seen.outcomes if one.said.state == "refused"]
    bare = sum(not one.said.retry_after for one in refused)
    crowd = Counter(one.said.status for one in refused if one.phase == "overload")
    elsewhere = [
        one
        for one in seen.outcomes
        if one.said.state in ("refused", "cut", "wrong") and not _excused(seen, one)
    ]
    return [
        row(
            "refused in the overload (429 or 503)",
            sum(crowd.values()),
            " ".join(f"{count}x {status}" for status, count in sorted(crowd.items())),
            ">= 1",
            met=bool(crowd),
        ),
        row("refusals without Retry-After", bare, f"of {len(refused)}", "0", met=not bare),
        row("not answered, without a reason", len(elsewhere), "", "0", met=not elsewhere),
    ]


def _excused(seen: Seen, one: Outcome) -> bool:
    """Whether it had to be expected then: a full server, or one that was killed or stopped."""
    if one.said.state == "refused":
        if one.phase == "overload":
            return True
        engine = _around(one, seen.engine_killed, _back(seen, seen.engine_killed))
        return engine or _around(one, seen.worker_killed, _back(seen, seen.worker_killed))
    if one.said.state == "cut":
        stopped = one.ended >= seen.stopped  # _consistent has it that it was not accepted
        return stopped or _around(one, seen.worker_killed, _back(seen, seen.worker_killed))
    return False


def _around(one: Outcome, killed: float, back: float) -> bool:
    return one.ended >= killed and one.started <= back


def _back(seen: Seen, killed: float) -> float:
    """When the first request that came after it was answered."""
    return min(
        (
            one.ended
            for one in seen.outcomes
            if one.started > killed and one.said.state == "answered"
        ),
        default=float("inf"),
    )


def _liveness(seen: Seen) -> list[Result]:
    rows = []
    healthy = _healthy(seen)
    for path in ("/", "/livez"):
        probes = [
            each
            for each in seen.probes
            if each[0] == path
            and each[1] < seen.stopped
            and not seen.worker_killed - 2 <= each[1] <= healthy
        ]
        times = [seconds * 1000 for _, _, seconds, _ in probes] or [float("inf")]
        p99 = quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]
        failed = sum(status != 200 for *_, status in probes)
        target = f"< {LIVENESS_MS:.0f} ms"
        rows += [
            row(f"GET {path}, p99", p99, "ms", target, met=p99 < LIVENESS_MS),
            row(f"GET {path}, slowest", max(times), f"ms of {len(probes)}"),
            row(f"GET {path}, not 200", failed, "", "0", met=not failed),
        ]
    return rows


def _healthy(seen: Seen) -> float:
    """When the probe was good again after the worker's death."""
    killed = seen.worker_killed
    good = (at + took for path, at, took, status in seen.probes if _good(path, at, status, killed))
    return min(good, default=float("inf"))


def _good(path: str, at: float, status: int, killed: float) -> bool:
    return path == "/" and at > killed and status == 200


def _recoveries(seen: Seen) -> list[Result]:
    rows = []
    within = f"<= {RECOVERY_SECONDS:.0f} s"
    for name, killed, words in (
        ("engine", seen.engine_killed, ("the engine died of signal 9", "ready again")),
        ("worker", seen.worker_killed, ("SIGKILL", "Booting worker")),
    ):
        seconds = _back(seen, killed) - killed
        met = seconds <= RECOVERY_SECONDS
        rows.append(row(f"kill -9 of the {name}, until it answers", seconds, "s", within, met=met))
        told = sum(word in seen.log for word in words)
        rows.append(
            row(f"kill -9 of the {name}, said in the log", told, "lines", "2", met=told == 2)
        )
    probe = _healthy(seen) - seen.worker_killed
    met = probe <= RECOVERY_SECONDS
    rows.append(row("kill -9 of the worker, until GET / is 200", probe, "s", within, met=met))
    return rows


def _memory(seen: Seen) -> list[Result]:
    """Each until it is killed: the slope of a straight line through the samples."""
    rows = []
    for name, column, until in (
        ("request handling", 1, seen.worker_killed),
        ("engine", 2, seen.engine_killed),
    ):
        samples = [each for each in seen.memory if seen.warm <= each[0] < until and each[column]]
        if len(samples) < 2:
            continue
        times = [each[0] / 60 for each in samples]
        sizes = [each[column] / MIB for each in samples]
        slope = linear_regression(times, sizes).slope
        long = samples[-1][0] - samples[0][0] >= LEAST_WINDOW
        rows += [
            row(f"memory of the {name}", sizes[-1], f"MiB, most {max(sizes):.0f}"),
            row(
                f"memory of the {name}, growth",
                slope,
                f"MiB/min over {samples[-1][0] - samples[0][0]:.0f} s",
                f"<= {GROWTH_MIB:g}" if long else None,
                met=slope <= GROWTH_MIB if long else None,
            ),
        ]
    return rows


def _stop(seen: Seen) -> list[Result]:
    said = lines(seen.log)
    last = [one for one in seen.outcomes if one.phase == "stopped" and one.ended >= seen.stopped]
    accepted = [one for one in last if said.get(one.id) and one.said.state != "left"]
    lost = sum(one.said.state != "answered" for one in accepted)
    # sent long before, and so surely accepted
    early = sum(
        one.said.state in ("cut", "silent")
        for one in last
        if one.sent is not None and one.sent < seen.stopped - 1
    )
    code = -1 if seen.exit_code is None else seen.exit_code
    return [
        row(
            "SIGTERM: requests under way or in line", len(accepted), "", ">= 1", met=bool(accepted)
        ),
        row("SIGTERM: of those not answered whole", lost + early, "", "0", met=not lost + early),
        row("SIGTERM: exit code", code, f"after {seen.stop_seconds:.1f} s", "0", met=code == 0),
    ]


def _faults(faults: Sequence[Fault]) -> list[Result]:
    if not faults:
        return []
    met = sum(fault.met for fault in faults)
    target = f"{len(faults)}"
    return [row("faults answered as they should be", met, "", target, met=met == len(faults))]

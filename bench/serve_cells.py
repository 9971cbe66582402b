"""The figures of bench-serve: one Cell per side, load and way of asking, and their grid.

Percentiles are by nearest rank, so each is a time that some request really took. Pure functions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JUDGED = "64/64"
MIXED = "mixed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a closed loop asks for."""

    shape: str
    """JUDGED: 64 tokens in and 64 out; MIXED: 16 to 256 in and 16 to 192 out."""
    callers: int

    @property
    def requests(self) -> int:
        """Three rounds, but two of the many callers' and some more of the single one's."""
        return max(8, min(3 * self.callers, 128))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One measurement."""

    side: str
    shape: str
    callers: int
    streamed: bool
    requests: int
    tokens_per_second: float
    p50: float
    """Latencies in seconds, of whole answers."""
    p95: float
    p99: float
    first_p50: float | None
    """Seconds to the first token; None where the answer came whole."""
    first_p95: float | None
    probe: float | None
    """The slowest page beside the load, in seconds."""
    layer_cpu: float | None
    """CPU seconds per request of the processes that handle requests; None where not told apart."""
    load_cpu: float
    """Share of one core that the load generator itself took."""
    others: float
    """The same for everything else on the machine; above 0.1 the cell is not to be trusted."""


class CellError(RuntimeError):
    """A side did not answer as asked; the text says how."""


def cell(
    side: str,
    load: Load,
    *,
    streamed: bool,
    measured: Mapping[str, Any],
    asked: Sequence[tuple[int, int]],
) -> Cell:
    """The figures of one run; CellError unless every answer has the tokens that were `asked`.

    Those are (prompt tokens, new tokens) of each request, in any order.
    """
    answers = measured["answers"]
    failed = [answer["error"] for answer in answers if answer["error"]]
    if failed:
        raise CellError(f"{len(failed)} of {len(answers)} requests failed, first: {failed[0]}")
    if len(answers) != len(asked):
        raise CellError(f"{len(asked) - len(answers)} of {len(asked)} requests were not reached")
    got = sorted((answer["prompt_tokens"], answer["new_tokens"]) for answer in answers)
    for is_, should in zip(got, sorted(asked), strict=True):
        if is_ != should:
            raise CellError(
                f"a request of {should[0]} tokens in and {should[1]} out was counted as "
                f"{is_[0]} in and {is_[1]} out"
            )
    latencies = [answer["seconds"] for answer in answers]
    firsts = [answer["first"] for answer in answers if answer["first"] is not None]
    probes = measured.get("probes")
    layer_cpu = measured.get("layer_seconds")
    return Cell(
        side=side,
        shape=load.shape,
        callers=load.callers,
        streamed=streamed,
        requests=len(answers),
        tokens_per_second=sum(answer["new_tokens"] for answer in answers) / measured["seconds"],
        p50=percentile(latencies, 50),
        p95=percentile(latencies, 95),
        p99=percentile(latencies, 99),
        first_p50=percentile(firsts, 50) if firsts else None,
        first_p95=percentile(firsts, 95) if firsts else None,
        probe=max(probes) if probes else None,
        layer_cpu=None if layer_cpu is None else layer_cpu / len(answers),
        load_cpu=measured.get("cpu_seconds", 0.0) / measured["seconds"],
        others=max(0.0, measured["other_seconds"] / measured["seconds"]),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def better(one: Cell, other: Cell) -> Cell:
    """Of two measurements of the same: the one that a busy minute spoilt less."""
    if one.streamed and one.first_p50 is not None and other.first_p50 is not None:
        return min(one, other, key=lambda cell: cell.first_p50 or 0)
    return max(one, other, key=lambda cell: cell.tokens_per_second)


def roofline(cell: Cell, bytes_per_second: float, weight_bytes: int) -> float:
    """Share of what reading the weights once per step allows: that times the callers."""
    return cell.tokens_per_second * weight_bytes / (bytes_per_second * cell.callers)


def grid(cells: Sequence[Cell], bytes_per_second: float, weight_bytes: int) -> str:
    """One line per side and load: speed and latency of whole answers, first tokens of streams."""
    head = (
        "load", "callers", "side", "tokens/s", "roofline", "p50 s", "p95 s", "p99 s",
        "first p50 ms", "first p95 ms", "slowest probe ms", "layer CPU ms", "streamed", "load CPU",
        "others",
    )  # fmt: skip
    rows = [head]
    found = {(c.shape, c.callers, c.side, c.streamed): c for c in cells}
    for shape, callers, side in dict.fromkeys((c.shape, c.callers, c.side) for c in cells):
        whole = found.get((shape, callers, side, False))
        stream = found.get((shape, callers, side, True))
        main = whole or stream
        if main is None:
            continue
        probes = [c.probe for c in (whole, stream) if c and c.probe is not None]
        rows.append(
            (
                shape,
                str(callers),
                side,
                f"{main.tokens_per_second:,.0f}",
                f"{roofline(main, bytes_per_second, weight_bytes):.0%}",
                f"{main.p50:.2f}",
                f"{main.p95:.2f}",
                f"{main.p99:.2f}",
                _milli(stream.first_p50 if stream else None),
                _milli(stream.first_p95 if stream else None),
                _milli(max(probes) if probes else None),
                _milli(whole.layer_cpu if whole else None, digits=2),
                _milli(stream.layer_cpu if stream else None, digits=2),
                f"{main.load_cpu:.0%}" if main.probe is not None else "",
                f"{max(c.others for c in (whole, stream) if c):.0%}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        padded = [
            text.ljust(width) if column in (0, 2) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _milli(seconds: float | None, digits: int = 0) -> str:
    return "" if seconds is None else f"{seconds * 1000:.{digits}f}"

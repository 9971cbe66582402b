"""What bench-serve promises, held against what it measured: the rows of its table.

Each target is about 16 callers, 64 tokens in and 64 out.
"""

from collections.abc import Mapping
from typing import Any

from bench.serve_cells import JUDGED, MIXED, Cell, roofline
from bench.serve_sides import BARE, LLAMA_CPP, OURS, SEED, TRANSFORMERS, VLLM
from bench.table import Result

CALLERS = 16
TIMES = {SEED: 12.0, TRANSFORMERS: 2.0, BARE: 0.9, VLLM: 1.0, LLAMA_CPP: 1.0}
"""How many times their tokens per second are promised."""
FIRST_TIMES_BARE = 1.5
"""Most time to the first token, in times of the engine's own."""
LAYER_SECONDS = 0.003
PROBE_SECONDS = 0.1

Key = tuple[str, str, int, bool]
"""Side, shape, callers, streamed."""


def report(
    cells: Mapping[Key, Cell],
    peaks: Mapping[str, int],
    bytes_per_second: float,
    weight_bytes: int,
) -> list[Result]:
    """Ours against each of the others, then what else is promised, then memory."""
    results: list[Result] = []
    for shape in (JUDGED, MIXED):
        results += _speeds(cells, shape)
    if BARE in peaks:
        results += _first_tokens(cells)
    whole, stream = (cells.get((OURS, JUDGED, CALLERS, streamed)) for streamed in (False, True))
    for cell, how in ((whole, "whole answers"), (stream, "streams")):
        if cell is None:
            continue
        if cell.layer_cpu is not None:
            more: dict[str, Any] = {}
            if cell is whole:
                met = cell.layer_cpu <= LAYER_SECONDS
                more = {"target": f"<= {LAYER_SECONDS * 1000:g} ms", "met": met}
            name = f"CPU time of our layer per request, {how}"
            results.append(Result(name=name, value=cell.layer_cpu * 1000, unit="ms", **more))
        if cell.probe is not None:
            results.append(
                Result(
                    name=f"slowest GET / beside {how}",
                    value=cell.probe * 1000,
                    unit="ms",
                    target=f"<= {PROBE_SECONDS * 1000:g} ms",
                    met=cell.probe <= PROBE_SECONDS,
                )
            )
        share = f"load generator's share of a core, {how}"
        results.append(Result(name=share, value=cell.load_cpu * 100, unit="%"))
    if whole is not None:
        share_of = roofline(whole, bytes_per_second, weight_bytes) * 100
        results.append(Result(name="share of the memory roofline", value=share_of, unit="%"))
    results.append(
        Result(name="read bandwidth of this machine", value=bytes_per_second / 1e9, unit="GB/s")
    )
    for name, peak in peaks.items():
        results.append(Result(name=f"peak memory of {name}", value=peak / 2**20, unit="MiB"))
    return results


def _speeds(cells: Mapping[Key, Cell], shape: str) -> list[Result]:
    ours = cells.get((OURS, shape, CALLERS, False))
    results = []
    for rival, times in TIMES.items():
        theirs = cells.get((rival, shape, CALLERS, False))
        if theirs is None:
            continue
        if ours is not None:
            ratio = ours.tokens_per_second / theirs.tokens_per_second
            more: dict[str, Any] = {}
            if shape == JUDGED:
                more = {"target": f">= {times:g}x", "met": ratio >= times}
            results.append(_speed(ours, baseline=rival, ratio=ratio, **more))
        results.append(_speed(theirs))
    return results or ([_speed(ours)] if ours else [])


def _speed(cell: Cell, **more: Any) -> Result:
    name = f"{cell.shape}, {cell.side}"
    return Result(name=name, value=cell.tokens_per_second, unit="tokens/s", **more)


def _first_tokens(cells: Mapping[Key, Cell]) -> list[Result]:
    ours, bare = (cells.get((side, JUDGED, CALLERS, True)) for side in (OURS, BARE))
    results = []
    for cell in (ours, bare):
        if cell is None or cell.first_p50 is None:
            continue
        more: dict[str, Any] = {}
        if cell is ours and bare is not None and bare.first_p50 is not None:
            ratio = bare.first_p50 / cell.first_p50
            more = {
                "baseline": BARE,
                "ratio": ratio,
                "target": f"<= {FIRST_TIMES_BARE:g} times its time",
                "met": ratio * FIRST_TIMES_BARE >= 1,
            }
        name = f"{JUDGED}, {cell.side}, first token, p50"
        results.append(Result(name=name, value=cell.first_p50 * 1000, unit="ms", **more))
    return results

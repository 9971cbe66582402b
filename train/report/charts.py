"""Line charts and histograms as inline SVG, which the page's own style sheet colours.

    lines([Series("train", [(1, 5.9), (10, 4.2)])])  -> "<svg …>…</svg>"

Drawn here rather than by a plotting library: matplotlib would add 70 MB to the train image, and its
SVG has fixed colours and repeats ids, which one HTML page with a light and a dark look cannot have.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 190
"""Of a chart, about the pixels that a column has on a phone, so that text keeps its size."""
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 8, 24
LABELS = 7
"""As many bounds of bins as fit side by side."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line; points that are not finite are left out."""

    name: str
    points: Sequence[Point]


def lines(series: Sequence[Series], title: str) -> str:
    """One line per series over a common x axis; empty where no series has a point."""
    kept = [[(x, y) for x, y in s.points if math.isfinite(y)] for s in series]
    xs = [x for points in kept for x, _ in points]
    ys = [y for points in kept for _, y in points]
    if not xs:
        return ""
    y_ticks = ticks(min(ys), max(ys), 4)
    x_ticks = [v for v in ticks(min(xs), max(xs), 5) if min(xs) <= v <= max(xs)]
    across = scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = grid(y_ticks, up) + x_labels([(across(v), f"{v:,.0f}") for v in x_ticks])
    for number, points in enumerate(kept, start=1):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        if len(points) == 1:
            across_x, up_y = path.split(",")
            parts.append(f'<circle class="s{number}" cx="{across_x}" cy="{up_y}" r="3"/>')
        elif points:
            parts.append(f'<polyline class="s{number}" points="{path}"/>')
    return svg(parts, title)


def bars(edges: Sequence[float], counts: Sequence[int], title: str) -> str:
    """A histogram: `counts[i]` lie from `edges[i]` on, below `edges[i + 1]`; bins equally wide."""
    highest = max(*counts, 1)
    y_ticks = ticks(0, highest, min(highest, 4))  # rows come whole
    up = scale(0, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / len(counts)
    parts = grid(y_ticks, up)
    for i, count in enumerate(counts):
        parts.append(
            f'<rect class="s1" x="{LEFT + i * step + 1:.1f}" y="{up(count):.1f}" '
            f'width="{max(step - 2, 1):.1f}" height="{HEIGHT - BOTTOM - up(count):.1f}">'
            f"<title>{edges[i]:,.0f} to {edges[i + 1]:,.0f}: {count:,}</title></rect>"
        )
    every = math.ceil(len(edges) / LABELS)
    shown = range(0, len(edges), every)
    return svg(parts + x_labels([(LEFT + i * step, f"{edges[i]:,.0f}") for i in shown]), title)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from at most `low` to at least `high`, in steps of 1, 2 or 5 times 10ⁿ."""
    if high - low <= abs(high) * 1e-9:  # one value only: room on both sides
        room = abs(high) / 2 or 1.0
        low, high = low - room, high + room
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From values to coordinates; a single value lies in the middle."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def label(value: float, step: float, largest: float) -> str:
    """`value` with the digits that an axis with this `step` needs: 1,200, 0.25 or 2e-4."""
    if not value:
        return "0"
    if largest < 1e-2:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def grid(values: Sequence[float], up: Callable[[float], float]) -> list[str]:
    """Horizontal lines with their values on the left."""
    step, largest = values[1] - values[0], max(abs(v) for v in values)
    return [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(v):.1f}" y2="{up(v):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{up(v) + 3.5:.1f}" text-anchor="end">'
        f"{label(v, step, largest)}</text>"
        for v in values
    ]


def x_labels(marks: Sequence[tuple[float, str]]) -> list[str]:
    """Text below the axis; the outermost stay inside the picture."""
    return [
        f'<text x="{min(x, WIDTH - RIGHT):.1f}" y="{HEIGHT - 7}" text-anchor="'
        f'{"end" if x > WIDTH - 3 * RIGHT else "middle"}">{text}</text>'
        for x, text in marks
    ]


def svg(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )

"""The curves of a job: its results.csv read, and drawn as one HTML page that stands alone.

steps = parse(text)
Path("curves.html").write_text(page("ftjob-…", steps, choice.checkpoint.step))
"""

import base64
import binascii
import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, TOP, BELOW = 720, 300, 56, 16, 32
COLORS = {"training loss": "#2563eb", "validation loss": "#d97706"}
TICKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One row of results.csv."""

    step: int
    train_loss: float | None
    valid_loss: float | None
    """Of the whole validation file where it was measured, else of a batch."""
    train_accuracy: float | None = None
    valid_accuracy: float | None = None


def parse(text: str) -> tuple[Step, ...]:
    """The rows of results.csv, also where the service sends it in base64."""
    text = text.removeprefix("\ufeff")
    if text and "," not in text.partition("\n")[0]:
        try:
            text = base64.b64decode(text, validate=True).decode("utf-8-sig")
        except (binascii.Error, UnicodeDecodeError):
            return ()
    found = []
    for row in csv.DictReader(io.StringIO(text)):
        step = _number(row, "step")
        if step is None:
            continue
        found.append(
            Step(
                step=int(step),
                train_loss=_number(row, "train_loss"),
                valid_loss=_number(row, "full_valid_loss", "valid_loss", "validation_loss"),
                train_accuracy=_number(row, "train_mean_token_accuracy", "train_accuracy"),
                valid_accuracy=_number(
                    row,
                    "full_valid_mean_token_accuracy",
                    "valid_mean_token_accuracy",
                    "validation_mean_token_accuracy",
                ),
            )
        )
    return tuple(found)


def _number(row: dict[str, str], *names: str) -> float | None:
    """The first of the columns with a number; the service writes -1 where nothing was measured."""
    for name in names:
        try:
            value = float(row.get(name) or "")
        except ValueError:
            continue
        if value >= 0:
            return value
    return None


def page(title: str, steps: Sequence[Step], chosen: int | None = None, note: str = "") -> str:
    """The page; `chosen` is the step of the checkpoint that is deployed, `note` says why."""
    lines = {
        "training loss": [(s.step, s.train_loss) for s in steps if s.train_loss is not None],
        "validation loss": [(s.step, s.valid_loss) for s in steps if s.valid_loss is not None],
    }
    drawn = {name: points for name, points in lines.items() if points}
    body = _svg(drawn, chosen) if drawn else "<p>The service has measured nothing.</p>"
    legend = " ".join(
        f'<span style="color:{COLORS[name]}">— {name}</span> ({points[-1][1]:.4f} at the end)'
        for name, points in drawn.items()
    )
    said = f"<p>{html.escape(note)}</p>" if note else ""
    return (
        '<!doctype html><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>"
        "<style>body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:760px}"
        "svg{width:100%;height:auto}text{font-size:12px;fill:#555}</style>"
        f"<h1>{html.escape(title)}</h1><p>{legend}</p>{body}{said}\n"
    )


def _svg(lines: dict[str, list[tuple[int, float]]], chosen: int | None) -> str:
    everything = [point for points in lines.values() for point in points]
    low_x, high_x = min(x for x, _ in everything), max(x for x, _ in everything)
    high_y = max(y for _, y in everything) or 1.0
    right, bottom = WIDTH - 16, HEIGHT - BELOW

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / max(high_x - low_x, 1)
        return LEFT + across * (right - LEFT), bottom - y / high_y * (bottom - TOP)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss by step">']
    for tick in range(TICKS + 1):
        value = high_y * tick / TICKS
        y = at(low_x, value)[1]
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">step {low_x}</text>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="end">step {high_x}</text>')
    if chosen is not None and low_x <= chosen <= high_x:
        x = at(chosen, 0)[0]
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="#16a34a" '
            'stroke-dasharray="4 3"/>'
            f'<text x="{x:.1f}" y="{TOP - 4}" text-anchor="middle">deployed</text>'
        )
    for name, points in lines.items():
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{COLORS[name]}" stroke-width="2"/>'
        )
    return "".join([*parts, "</svg>"])

"""How the cloud verbs write money, time spans and tables, and read Azure's times.

It knows no resource and no price.
"""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime


def money(amount: float | None) -> str:
    """US dollars, as `$12.34`; what is less than half a cent has four decimals."""
    if amount is None:
        return "an unknown price"
    return f"${amount:,.4f}" if 0 < amount < 0.005 else f"${amount:,.2f}"


def span(seconds: float) -> str:
    """A time span for people: `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def hours(amount: float) -> str:
    """A length that somebody has set: `20 s`, `30 min`, `4 h`."""
    if amount * 60 < 1:
        return f"{amount * 3600:.0f} s"
    return f"{amount * 60:.0f} min" if amount < 1 else f"{amount:.4g} h"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def moment(text: str | None) -> datetime | None:
    """A time as Azure writes it (ISO 8601; up to seven decimals, Z or offset), in UTC."""
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(text or "")
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    return None

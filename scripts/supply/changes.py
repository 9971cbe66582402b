"""What an upgrade changes: package, from which version to which, in which locks."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.supply import locks, pins

Pins = Mapping[str, Mapping[str, str]]
"""The packages of each lock: {lock: {name: version}}."""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One package; no `before`: it is new, no `after`: it has gone."""

    name: str
    before: str
    after: str
    locks: list[str] = field(compare=False)

    @property
    def major(self) -> bool:
        """Whether the first number of the version moves, where old habits may end."""
        return bool(self.before and self.after) and (
            self.before.partition(".")[0] != self.after.partition(".")[0]
        )


def locked(root: Path) -> dict[str, dict[str, str]]:
    """All that a checkout locks; torch, which is in no lock, by its .in file."""
    found = {str(path.relative_to(root)): pins(path.read_text()) for path in locks(root)}
    torch = root / "images/torch.in"
    if torch.is_file():
        found["images/torch.in"] = pins(torch.read_text())
    return found


def compare(old: Pins, new: Pins) -> list[Change]:
    """By name; a package that moves otherwise in another lock is a change of its own."""
    moved: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for lock in sorted({*old, *new}):
        before, after = old.get(lock, {}), new.get(lock, {})
        for name in {*before, *after}:
            was, becomes = before.get(name, ""), after.get(name, "")
            if was != becomes:
                moved[name, was, becomes].append(lock)
    return sorted(Change(*key, where) for key, where in moved.items())


def table(changes: list[Change]) -> list[str]:
    """One line each, for people."""
    rows = [
        (
            change.name,
            f"{change.before or 'new'} → {change.after or 'gone'}",
            "major" if change.major else "",
            ", ".join(change.locks),
        )
        for change in changes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

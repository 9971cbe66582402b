"""What keeps this machine, or the account on Azure, from doing its work; each with its remedy.

    for finding in examine(Here.of(recipe), checks.ALL): print(line(finding))

One small file per check below checks/. A check is pure: it asks Here, which alone looks at the
machine, and answers with findings. No look takes longer than PROBE_SECONDS.
"""

import concurrent.futures
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scripts.errors import VerbError

if TYPE_CHECKING:
    from scripts.doctor.here import Here

Severity = Literal["ok", "note", "warning", "error", "skipped"]
"""Only an error keeps something from working; a warning may, later or elsewhere."""
PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check has found."""

    check: str
    severity: Severity
    sentence: str
    remedy: str = ""
    """The command or edit that mends it; there for every warning and error."""
    fix: Callable[[], str] | None = None
    """Mends it without risk, and says what it did; with FIX=1 alone."""

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "severity": self.severity,
            "sentence": self.sentence,
            "remedy": self.remedy,
            "fixable": self.fix is not None,
        }


Check = Callable[["Here"], Iterable[Finding]]
"""Named by its module."""


def name(check: Check) -> str:
    return check.__module__.rpartition(".")[2].replace("_", " ")


def examine(here: "Here", checks: Sequence[Check], *, workers: int = 8) -> Iterator[Finding]:
    """The findings of all checks in their order; they look at the machine side by side.

    A check that takes too long, or that cannot look, is a finding itself.
    """
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for found in pool.map(lambda check: _found(here, check), checks):
            yield from found


def _found(here: "Here", check: Check) -> list[Finding]:
    began = time.monotonic()
    try:
        found = list(check(here))
    except (OSError, VerbError) as error:
        found = [
            Finding(
                check=name(check),
                severity="warning",
                sentence=f"could not look: {error}",
                remedy="make doctor again once that is mended",
            )
        ]
    seconds = time.monotonic() - began
    if seconds > 2 * PROBE_SECONDS:
        found.append(
            Finding(
                check=name(check),
                severity="note",
                sentence=f"looking took {seconds:.0f} s",
            )
        )
    return found


def worst(findings: Iterable[Finding]) -> Severity:
    order: tuple[Severity, ...] = ("skipped", "ok", "note", "warning", "error")
    return max((finding.severity for finding in findings), key=order.index, default="ok")


MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR", "skipped": "-"}


def line(finding: Finding) -> str:
    """For people."""
    mark = MARKS[finding.severity]
    text = f"{mark:>7}  {finding.check:<14} {finding.sentence}"
    return f"{text}; next: {finding.remedy}" if finding.remedy else text

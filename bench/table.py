"""What every bench shares: its result, the table and JSON file they end in, a process to measure.

result, peak = child("bench.train", ["side", "..."])
finish("train", [Result(name="homeport", value=6117.0, unit="tokens/s")])
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from train.runs import write_json

OUTPUTS = Path("outputs/bench")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One measured value, and what it is held against."""

    name: str
    """What was measured, in words."""
    value: float
    unit: str
    baseline: str | None = None
    """Name of the result that `ratio` is taken against."""
    ratio: float | None = None
    """How many times better than `baseline`; above 1 is better, whatever the unit."""
    target: str | None = None
    """What is promised, in words: `>= 3x`."""
    met: bool | None = None
    """Whether the target was reached; None without a target."""


class ChildError(RuntimeError):
    """A measured process failed; the text ends with the last lines that it wrote to stderr."""


def finish(bench: str, results: Sequence[Result]) -> None:
    """Print the results as one table and write them to outputs/bench/<bench>.json."""
    print(table(results), flush=True)
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    path = OUTPUTS / f"{bench}.json"
    write_json(path, [asdict(result) for result in results])
    print(f"written: {path}", flush=True)


def table(results: Sequence[Result]) -> str:
    """The results as aligned columns: name, value, unit, ratio and its baseline, target."""
    rows = [("", "value", "unit", "ratio", "target")]
    for result in results:
        ratio = "" if result.ratio is None else f"{result.ratio:.2f}x"
        if result.baseline:
            ratio = f"{ratio} of {result.baseline}".strip()
        verdict = {None: "", True: "met", False: "MISSED"}[result.met]
        target = " ".join(filter(None, (result.target, verdict)))
        rows.append((result.name, _number(result.value), result.unit, ratio, target))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column == 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _number(value: float) -> str:
    """At least four digits that count, and no exponent."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 0.001 else f"{value:.6f}"


def child(
    code_or_module: str,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    *,
    python: str = sys.executable,
) -> tuple[dict[str, Any], int]:
    """Run Python in a process of its own: (the JSON object on its last line of stdout, peak bytes).

    `code_or_module` is a dotted module name, or source text; `args` become sys.argv[1:]; `env` is
    added to this process's. The peak is the largest resident set of the process or of one of its
    own children. Linux counts a process from its parent's size at the fork on, so the caller must
    stay small: import nothing heavy there. Raises ChildError when it fails or prints no object.
    """
    module = all(part.isidentifier() for part in code_or_module.split("."))
    command = [python, "-m" if module else "-c", code_or_module, *args]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env={**os.environ, **(env or {})}
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        # Popen must not wait for a process that is gone
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        lines = out.read().decode(errors="replace").splitlines()
        complaint = "\n".join(err.read().decode(errors="replace").splitlines()[-20:])
    try:
        result = json.loads(lines[-1]) if process.returncode == 0 else None
    except (IndexError, json.JSONDecodeError):
        result = None
    if not isinstance(result, dict):
        what = code_or_module if module else "code"
        raise ChildError(f"{what} ended with {process.returncode}, no result:\n{complaint}")
    return result, usage.ru_maxrss * 1024

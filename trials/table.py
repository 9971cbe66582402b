"""What every trial ends in: bench's table, a file of outputs/trials/, an exit code.

finish("soak", [row("5xx", 0, "answers", "0", met=True)])
"""

from collections.abc import Sequence
from pathlib import Path

from bench.table import Result, table
from train.runs import write_json

OUTPUTS = Path("outputs/trials")
MISSED = 4
"""Exit code where a target is missed."""


def row(
    name: str, value: float, unit: str, target: str | None = None, *, met: bool | None = None
) -> Result:
    """One figure, and what it is held against."""
    return Result(name=name, value=value, unit=unit, target=target, met=met)


def finish(trial: str, results: Sequence[Result], folder: Path = OUTPUTS) -> int:
    """Print the rows as one table, write them to outputs/trials/<trial>.json; the exit code."""
    print(table(results), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{trial}.json"
    keys = ("name", "value", "unit", "target", "met")
    write_json(path, [{key: getattr(result, key) for key in keys} for result in results])
    print(f"written: {path}", flush=True)
    return MISSED if any(result.met is False for result in results) else 0

"""The figures of the trials of the cloud verbs, as `make soak` and `make fuzz` write theirs.

write("kills", [figure("same state", 50, "kills", "= 50", True)])    # outputs/trials/kills.json
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.settings import OUTPUTS


def figure(
    name: str, value: float, unit: str, target: str | None = None, met: bool | None = None
) -> dict[str, Any]:
    """One figure, and what it is held against."""
    return {"name": name, "value": value, "unit": unit, "target": target, "met": met}


def write(trial: str, figures: Sequence[dict[str, Any]]) -> Path:
    """Keep them; the file."""
    path = OUTPUTS / "trials" / f"{trial}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(list(figures), ensure_ascii=False, indent=2) + "\n", "utf-8")
    part.replace(path)
    return path

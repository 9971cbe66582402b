"""The pages of docs/ that are made from the program: its sentences, targets, variables and codes.

Nothing here imports what it describes; all of it is read from the source, by ast.
"""

import ast
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("scripts", "train", "serve")


def modules(*rooms: str) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file of the rooms, by its path in the checkout."""
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield str(path.relative_to(ROOT)), parsed(path)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def called(call: ast.Call) -> str:
    """The bare name of what is called: `f` of `f()` and of `module.f()`."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """As Markdown; a bar in a cell is written so that it stays in it."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", r"\|") for c in row) + " |" for row in lines)

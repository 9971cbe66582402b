"""The rooms of the house: who may import whom, how long a file may be, what may stand in it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tree import ROOT, files

LONGEST = 600
REGISTRIES = ("py" + "pi.org", "python" + "hosted", "deb." + "debian", "registry." + "npmjs")
"""Package registries are the user's own setting, so no file names one."""


def imports(room: str) -> Iterator[tuple[Path, str]]:
    """Every module that a file of the room imports from this project."""
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module
                yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("train", r"(scripts|serve|emulator|bench|trials)\b"),
        ("serve", r"(scripts|train|emulator|bench|trials)\b"),
        ("scripts", r"(serve|emulator|bench|trials)\b|train\.(?!recipe\b)\w+"),
        ("bench", r"(scripts|emulator|trials)\b|serve\.(?!engine\b)\w+"),
        ("trials", r"(scripts|emulator)\b|serve\.(?!engine\b)\w+"),
        ("emulator", r"(train|serve|scripts|bench|trials)\b"),
    ],
)
def test_a_room_imports_only_what_it_may(room: str, forbidden: str) -> None:
    wrong = [f"{path}: {name}" for path, name in imports(room) if re.match(forbidden, name)]
    assert not wrong


def test_only_the_engine_of_the_server_knows_torch() -> None:
    engine = ROOT / "serve/engine"
    torch = [path for path, name in imports("serve") if name.split(".")[0] == "torch"]
    assert torch
    assert all(path.is_relative_to(engine) for path in torch)


def test_no_file_is_too_long_and_none_names_a_registry() -> None:
    for path in files():
        text = path.read_text(encoding="utf-8")
        assert path.suffix != ".py" or text.count("\n") <= LONGEST, path
        assert not [host for host in REGISTRIES if host in text], path

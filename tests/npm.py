"""An npm of the test's own, since the real one takes half a minute and fails for real reasons."""

import os
from pathlib import Path

import pytest


def put_npm(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An npm that is found before the real one."""
    folder.mkdir()
    for name in ("npm", "node"):
        (folder / name).write_text(f"#!/bin/sh\n{program}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

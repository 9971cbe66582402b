"""How the trial of secrets runs verbs."""

import os
from pathlib import Path

import pytest

from trials.secrets_acts import Workplace


def test_a_version_manager_in_front_of_python_is_no_part_of_what_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = tmp_path / "bin/python3"
    manager.parent.mkdir()
    manager.write_text(f"#!/bin/sh\ntouch '{tmp_path}/was asked'\nexit 1\n")
    manager.chmod(0o755)
    monkeypatch.setenv("PATH", str(manager.parent), prepend=os.pathsep)
    assert "local-serve" in Workplace(tmp_path / "work", "tag").make("help", exported=True)
    assert not (tmp_path / "was asked").exists()

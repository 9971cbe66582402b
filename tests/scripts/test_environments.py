"""An environment is made from its lock, and made anew when that changes."""

import hashlib
from pathlib import Path

import pytest

from scripts.environments import ensure
from scripts.errors import MachineError


def test_a_changed_lock_is_installed_anew_and_a_failure_is_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lock, folder = tmp_path / "tool.txt", tmp_path / "venv"
    lock.write_text("no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    folder.mkdir()
    stamp = folder / ".homeport"
    stamp.write_text(hashlib.sha256(lock.read_bytes()).hexdigest())
    assert ensure("the tool", lock, folder) == folder / "bin/python"
    assert "installing" not in capfd.readouterr().err

    stamp.write_text("another lock")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(MachineError, match="the tool could not be installed"):
        ensure("the tool", lock, folder)
    assert "installing tool.txt into venv; once" in capfd.readouterr().err
    assert not stamp.exists()

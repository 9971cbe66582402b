import os
from pathlib import Path

import pytest

from scripts import rehearsal
from scripts.errors import MachineError
from scripts.host import Host
from scripts.rehearsal import LocalAzure
from scripts.runtime import Choice
from scripts.settings import CACHE
from tests.npm import put_npm
from tests.tree import ROOT

FAILS = "echo 'npm error the network is away' >&2; exit 1"
INSTALLS_WHAT_NEVER_LISTENS = """
mkdir -p node_modules/.bin
printf '#!/bin/sh\\nexec sleep 60\\n' > node_modules/.bin/azurite-blob
chmod +x node_modules/.bin/azurite-blob
"""


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalAzure:
    """A local Azure of a checkout in which Azurite was not installed yet."""
    for name in ("emulator", "images"):
        (tmp_path / name).symlink_to(ROOT / name)
    cache = tmp_path / ".cache"
    monkeypatch.setattr(rehearsal, "ROOT", tmp_path)
    for name in ("FOLDER", "IMAGES", "BASES", "ENV", "STATE", "LOG", "CACHE"):
        own = cache / getattr(rehearsal, name).relative_to(CACHE)
        monkeypatch.setattr(rehearsal, name, own)
    monkeypatch.delenv("HOMEPORT_AZURITE", raising=False)
    return LocalAzure(Host(dict(os.environ), Choice("cpu", "test")))


def test_what_cannot_be_installed_is_said_before_anything_starts(
    azure: LocalAzure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    put_npm(tmp_path / "bin", FAILS, monkeypatch)
    with pytest.raises(MachineError, match="could not be installed"):
        azure.start()
    said = capfd.readouterr().err
    assert "setup: installing Azurite by npm" in said
    assert "npm error the network is away" in said
    assert not rehearsal.STATE.exists()


def test_a_start_that_takes_too_long_is_ended_and_its_log_named(
    azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_npm(tmp_path / "bin", INSTALLS_WHAT_NEVER_LISTENS, monkeypatch)
    monkeypatch.setattr(rehearsal, "START_SECONDS", 0)
    monkeypatch.setattr(rehearsal, "STOP_SECONDS", 0)
    with pytest.raises(MachineError, match=r"did not answer in 0 s; its log: .*rehearsal\.log"):
        azure.start()
    # the seconds are counted from after it
    assert (tmp_path / ".cache/azurite/done").is_file()
    assert not azure.stop()

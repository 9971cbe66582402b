import sys
from pathlib import Path

import pytest

from scripts import setup
from scripts.errors import MachineError
from scripts.settings import ROOT


def test_torch_comes_from_where_the_setting_says() -> None:
    assert setup.torch_index("cpu", {"HOMEPORT_TORCH_INDEX": "pip"})[0] == ""
    index = "https://mirror.example/torch"
    assert setup.torch_index("cuda", {"HOMEPORT_TORCH_INDEX": index})[0] == index


def test_torch_comes_from_pips_own_settings_where_its_index_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(setup.TORCH_INDEXES, "cpu", "https://127.0.0.1:1/whl/cpu")
    index, reason = setup.torch_index("cpu", {})
    assert (index, reason) == ("", "https://127.0.0.1:1/whl/cpu cannot be reached")


def test_the_host_installs_the_torch_of_the_images() -> None:
    assert f"torch=={setup.torch_version()}" in (ROOT / "images/torch.in").read_text()


def test_a_lock_is_installed_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setenv("HOMEPORT_VENV", str(tmp_path))
    monkeypatch.setattr(setup, "pip", lambda options, *what: installed.append(what[-1]))
    lock = tmp_path / "x.txt"
    for content in ("a", "a", "b"):
        lock.write_text(content)
        setup.install("x", [lock])
    assert installed == [str(lock)] * 2


def test_a_failed_installation_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(options: list[str], *what: str) -> None:
        raise MachineError("no network")

    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setenv("HOMEPORT_VENV", str(tmp_path))
    monkeypatch.setattr(setup, "pip", fails)
    lock = tmp_path / "x.txt"
    lock.write_text("a")
    with pytest.raises(MachineError):
        setup.install("x", [lock])
    assert not setup.stamp("x").exists()


def test_a_disk_too_small_is_said_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEPORT_VENV", str(tmp_path))
    monkeypatch.setattr(setup, "ensure_verbs", lambda: None)
    monkeypatch.setitem(setup.NEEDED_BYTES, "cpu", 10**18)
    with pytest.raises(MachineError, match=r"needs 1000000000 GB free on its disk and has"):
        setup.ensure_runtime("cpu")


def test_a_folder_that_no_search_path_can_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOMEPORT_VENV", str(tmp_path / "a:b"))
    with pytest.raises(MachineError, match=r"a:b has a ':' in its name.*: move it"):
        setup.ensure_verbs()


def test_a_python_too_old_is_refused_with_how_to_name_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "OLDEST", (9, 0))
    with pytest.raises(MachineError, match=r"make PYTHON=python3\.12"):
        setup.ensure_verbs()

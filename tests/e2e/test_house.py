"""The verbs that keep the house, without an engine, so that no image of yours is removed."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import clone
from tests.tree import ROOT

pytestmark = pytest.mark.e2e
NO_ENGINE = {"DOCKER_HOST": "tcp://127.0.0.1:1"}


def test_clean_removes_what_can_be_made_again_and_keeps_results(tmp_path: Path) -> None:
    fresh = clone(tmp_path, "host")
    for name in (".cache/tiny-1", ".mypy_cache", "outputs/tiny-ja"):
        (fresh.folder / name).mkdir(parents=True)
    done = fresh.make("clean", environ=NO_ENGINE)
    left = {path.name for path in fresh.folder.iterdir()}
    assert left.isdisjoint({".cache", ".mypy_cache"})
    assert "kept outputs/" in done.stderr
    assert (fresh.folder / "outputs/tiny-ja").is_dir()
    assert Path(sys.executable).exists()  # HOMEPORT_VENV lies elsewhere, so it is not removed


def test_the_locks_are_what_their_short_files_compile_to(tmp_path: Path) -> None:
    fresh = clone(tmp_path, "host")
    fresh.make("lock", environ=NO_ENGINE)
    for name in ("host.txt", "images/torch.txt", "images/train.txt", "images/serve.txt"):
        assert (fresh.folder / name).read_text() == (ROOT / name).read_text(), name


@pytest.mark.skipif(not shutil.which("python3"), reason="no python3 to make an environment with")
def test_a_bare_checkout_makes_its_own_environment(tmp_path: Path) -> None:
    fresh = clone(tmp_path, "host")
    own = {"HOMEPORT_VENV": str(tmp_path / "own"), **NO_ENGINE}
    done = fresh.make("local-stop", environ=own)
    assert "setup: installing host.txt" in done.stderr
    assert "no server of this checkout is running" in done.stderr
    assert "setup:" not in fresh.make("local-stop", environ=own).stderr

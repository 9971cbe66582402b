"""Training gets its secrets by a file that nobody else can read, and that is gone afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import handed as giving
from scripts.handed import handed
from train import handed as taking
from train.errors import MachineError


def test_training_takes_what_the_verb_hands_over_and_deletes_it(tmp_path: Path) -> None:
    given = {"HF_TOKEN": "hf_x'\"$", "MLFLOW_TRACKING_PASSWORD": "p", "AZURE_CLIENT_SECRET": "no"}
    with handed(given, tmp_path) as file:
        assert file is not None
        assert file.stat().st_mode & 0o777 == 0o600
        environ = {taking.VARIABLE: str(file), "MLFLOW_TRACKING_PASSWORD": "of the process"}
        taking.take(environ)
        assert environ == {"HF_TOKEN": "hf_x'\"$", "MLFLOW_TRACKING_PASSWORD": "of the process"}
        assert not file.exists()
    assert giving.VARIABLE == taking.VARIABLE


def test_nothing_is_written_where_there_is_nothing_to_hand_over(tmp_path: Path) -> None:
    with handed({"HF_TOKEN": "", "OTHER": "x"}, tmp_path) as file:
        assert file is None
        assert list(tmp_path.iterdir()) == []
    environ = {"OTHER": "x"}
    taking.take(environ)
    assert environ == {"OTHER": "x"}


def test_a_file_that_training_never_read_is_removed_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), handed({"HF_TOKEN": "x"}, tmp_path):
        raise KeyError("the engine does not answer")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_verb_left_is_removed_by_the_next(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"handed-{ended.pid}.json").write_text("{}")
    (tmp_path / f"handed-{os.getpid()}.json").write_text("{}")
    (tmp_path / f"handed-{os.getppid()}.json").write_text("{}")  # of a verb that still runs
    with handed({}, tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [f"handed-{os.getppid()}.json"]


def test_a_file_that_cannot_be_read_ends_in_a_sentence_without_its_content(tmp_path: Path) -> None:
    broken = tmp_path / "handed-1.json"
    broken.write_text('{"HF_TOKEN": "hf_half')
    with pytest.raises(MachineError, match="same command again") as caught:
        taking.take({taking.VARIABLE: str(broken)})
    assert "hf_half" not in str(caught.value)

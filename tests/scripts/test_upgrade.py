"""`make upgrade` in a small checkout: its lock script moves one version, its gates are commands."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from scripts.errors import CommandError, MachineError, UsageError
from scripts.supply.journal import Journal
from scripts.upgrade import GATES, Gate, Place, upgrade
from tests.tree import ROOT

LOCK = """\
    #!/usr/bin/env bash
    # --upgrade, or --upgrade-package with its version: both locks move
    cd "$(dirname "$0")/.."
    [[ $1 == --upgrade || $2 == idna || $2 == idna==* ]] || exit 1
    version=${2#idna}; version=${version#==}
    sed -i "s/^idna==.*/idna==${version:-4.0}/" host.txt images/train.txt
    sed -i 's/^six==.*/six==1.1/' host.txt
"""
PASSES = Gate("good", "passes", ("true",))
FAILS = Gate("bad", "fails", ("bash", "-c", "echo this is why; exit 7"))
LOOKS = Gate("looks", "sees the new locks", ("grep", "-q", "idna==4.0", "host.txt"))


def git(root: Path, *words: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@x")
    done = subprocess.run(["git", *who, *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "check out"
    (root / "images").mkdir(parents=True)
    for lock in ("host", "images/train"):
        (root / f"{lock}.in").write_text("idna\nsix==1.0\n")
        (root / f"{lock}.txt").write_text("idna==3.9\nsix==1.0\n")
    script = root / "images/lock"
    script.write_text(textwrap.dedent(LOCK))
    script.chmod(0o755)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    return Place(root, tmp_path / "work", tmp_path / "kept")


def locks(place: Place) -> list[bytes]:
    return [(place.root / f"{name}.txt").read_bytes() for name in ("host", "images/train")]


def test_every_gate_is_made_of_what_is_here() -> None:
    words = {word for gate in GATES for word in gate.command}
    tests = {word for word in words if word.startswith("tests/")}
    assert len(tests) > 8
    assert [path for path in tests if not (ROOT / path).exists()] == []
    assert [gate.name for gate in GATES] == ["install", "check", "traps", "parity", "rehearsal"]
    assert {"check", "rehearse"} <= words


def test_new_locks_come_in_when_every_gate_has_seen_them_and_passed(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade(place, [], [LOOKS, PASSES])
    assert locks(place) == [b"idna==4.0\nsix==1.1\n", b"idna==4.0\nsix==1.0\n"]
    assert git(place.root, "diff", "--name-only") == "host.txt\nimages/train.txt\n"
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "idna  3.9 → 4.0  major  host.txt, images/train.txt",
        "six   1.0 → 1.1         host.txt",
    ]
    assert "held by the .in files, unless PACKAGES names them: six 1.0" in said.err
    assert "git diff" in said.err
    assert not place.tree.exists()


def test_a_named_package_goes_to_the_named_version(place: Place) -> None:
    upgrade(place, ["IDNA==3.11"], [PASSES])
    assert b"idna==3.11" in locks(place)[1]


def test_a_gate_that_fails_leaves_the_checkout_and_keeps_the_new_locks_with_the_log(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = locks(place)
    with pytest.raises(CommandError, match=r"gate bad failed \(exit code 7\)") as caught:
        upgrade(place, [], [PASSES, FAILS])
    assert caught.value.exit_code == 4
    assert locks(place) == before
    assert git(place.root, "status", "--porcelain") == ""
    assert (place.kept / "images/train.txt").read_text() == "idna==4.0\nsix==1.0\n"
    assert (place.kept / "bad.log").read_text() == "this is why\n"
    assert "this is why" in capsys.readouterr().err


def test_locks_that_cannot_be_resolved_are_a_sentence(place: Place) -> None:
    with pytest.raises(UsageError, match="in no lock"):
        upgrade(place, ["nonsense"], [PASSES])
    with pytest.raises(UsageError, match="name or name==version"):
        upgrade(place, ["idna>3"], [PASSES])
    with pytest.raises(MachineError, match="Nothing was changed"):
        upgrade(place, ["six==9"], [PASSES])  # which the script above does not know
    assert git(place.root, "status", "--porcelain") == ""


def test_changes_that_are_not_committed_are_refused_and_kept(place: Place) -> None:
    (place.root / "host.txt").write_text("mine\n")
    with pytest.raises(UsageError, match=r"1 tracked files have changes \(host.txt"):
        upgrade(place, [], [PASSES])
    assert (place.root / "host.txt").read_text() == "mine\n"


def test_an_edit_that_is_made_meanwhile_is_not_written_over(place: Place) -> None:
    edit = Gate("edit", "somebody works", ("bash", "-c", f"echo mine >'{place.root}/host.txt'"))
    with pytest.raises(CommandError, match="tracked files have changes"):
        upgrade(place, [], [edit])
    assert (place.root / "host.txt").read_text() == "mine\n"


PROGRAM = """
import sys
from pathlib import Path
from scripts.upgrade import Gate, Place, upgrade
root, work, kept = map(Path, sys.argv[1:])
upgrade(Place(root, work, kept), [], [Gate("long", "waits", ("sleep", "20"))])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_upgrade_that_is_stopped_has_changed_nothing(
    place: Place, number: signal.Signals
) -> None:
    before = locks(place)
    folders = [str(folder) for folder in (place.root, place.work, place.kept)]
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *folders], cwd=ROOT, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 20
    while not (place.kept / "long.log").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(MachineError, match="another make upgrade"):
        upgrade(place, [], [PASSES])
    program.send_signal(number)
    program.communicate()
    assert locks(place) == before
    upgrade(Place(place.root, place.work, place.work / "again"), [], [PASSES])
    assert locks(place) != before


def test_a_process_killed_between_two_files_is_made_good_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"old {name}")
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if target.name == "b":
            os._exit(9)
        replace(source, target)

    if (pid := os.fork()) == 0:
        monkeypatch.setattr(os, "replace", killed)
        Journal(tmp_path / "journal", tmp_path).replace({"a": b"new a", "b": b"new b"})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert (tmp_path / "a").read_text() == "new a"

    assert Journal(tmp_path / "journal", tmp_path).restore() == ["a"]
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["old a", "old b"]
    assert Journal(tmp_path / "journal", tmp_path).restore() == []


def test_files_of_which_one_cannot_be_written_all_stay(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").write_text("old")
    (tmp_path / ".b.new").mkdir()  # where the new one would be written first
    with pytest.raises(OSError, match="directory"):
        Journal(tmp_path / "journal", tmp_path).replace({"a": b"new", "b": b"new"})
    assert (tmp_path / "a").read_text() == "old"

"""Move the locks to newer versions, and let them in only when what we rely on still holds.

All of it happens in a clone of this checkout, with an environment of its own: the locks are moved
there, installed there, and the gate is passed there. Only then do the new files replace the old
ones, all or none. So whatever fails, or is interrupted, leaves this checkout as it was.
"""

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.console import run_verb, say
from scripts.errors import CommandError, MachineError, UsageError, VerbError
from scripts.runtime import probe
from scripts.settings import CACHE, OUTPUTS, ROOT, environment, flag_default, relative
from scripts.supply.changes import compare, locked, table
from scripts.supply.journal import Journal
from scripts.supply.moving import decided, move

FAILED = 4
GRACE_SECONDS = 60
"""For a gate that is interrupted: a rehearsal takes its containers away."""
LOG_TAIL = 20


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that must still hold."""

    name: str
    what: str
    command: tuple[str, ...]
    """Run in the clone; {python} is its environment's."""


def pytest(*paths: str) -> tuple[str, ...]:
    return ("{python}", "-m", "pytest", "-q", "-m", "not e2e", *paths)


INSTALL = Gate(
    "install",
    "the new locks into an environment of their own",
    ("{base}", "-m", "scripts.setup", "--runtime", "--cloud"),
)
GATES = (
    INSTALL,
    Gate("check", "lint, types, unit tests", ("make", "check")),
    Gate(
        "traps",
        "packs, the router's loss, merged experts, templates, labels, kernels",
        pytest(
            *("tests/train/test_packing.py", "tests/train/test_sft.py", "tests/train/test_rows.py"),
            *("tests/train/test_merge.py", "tests/train/test_chat_template.py"),
            *("tests/train/test_attention.py", "tests/train/test_resume.py", "tests/train/data"),
        ),
    ),
    Gate(
        "parity",
        "the local Azure with both SDKs, the engines with the reference",
        pytest(
            *("tests/emulator/test_parity.py", "tests/emulator/test_sdk_session.py"),
            *("tests/emulator/contract", "tests/serve/engine"),
        ),
    ),
    Gate("rehearsal", "the whole cloud path", ("make", "rehearse")),
)


@dataclass(frozen=True, slots=True)
class Place:
    """The checkout, and where the upgrade works."""

    root: Path
    work: Path
    kept: Path
    """For the log, and for new locks that did not pass."""

    @property
    def tree(self) -> Path:
        return self.work / "tree"

    @property
    def venv(self) -> Path:
        return self.work / "venv"

    def journal(self) -> Journal:
        return Journal(self.work / "journal", self.root)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make upgrade", description="Move the locks, pass the gate, and leave the rest to git."
    )
    parser.add_argument(
        "--packages",
        default=flag_default("PACKAGES"),
        help='some only, as in "torch idna==3.11"; else all that the .in files leave free',
    )
    packages = parser.parse_args().packages.split()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    upgrade(Place(ROOT, CACHE / "upgrade", OUTPUTS / "upgrade" / stamp), packages, GATES)


def upgrade(place: Place, packages: Sequence[str], gates: Sequence[Gate]) -> None:
    """The verb. Leaves the changed files in the checkout, or it as it was."""
    place.work.mkdir(parents=True, exist_ok=True)
    with (place.work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError("another make upgrade of this checkout is running.") from None
        if back := place.journal().restore():
            say(f"an earlier upgrade was cut off; restored: {', '.join(back)}")
        commit = need_clean(place.root)
        try:
            _upgrade(place, packages, gates, commit)
        finally:
            for folder in (place.tree, place.venv):
                shutil.rmtree(folder, ignore_errors=True)


def _upgrade(place: Place, packages: Sequence[str], gates: Sequence[Gate], commit: str) -> None:
    for folder in (place.tree, place.venv):
        shutil.rmtree(folder, ignore_errors=True)
    git(place.work, "clone", "--quiet", "--shared", str(place.root), str(place.tree))
    old = locked(place.tree)
    move(place.tree, packages)
    changed = git(place.tree, "diff", "--name-only").splitlines()
    changes = compare(old, locked(place.tree))
    if held := decided(place.tree) if not packages else {}:
        listed = ", ".join(f"{name} {version}" for name, version in sorted(held.items()))
        say(f"held by the .in files, unless PACKAGES names them: {listed}")
    if not changes:
        say("nothing to upgrade: the locks hold the newest versions that the .in files allow.")
        return
    lines = table(changes)
    print("\n".join(lines), flush=True)
    place.kept.mkdir(parents=True)
    (place.kept / "changes.txt").write_text("\n".join(lines) + "\n")
    new = {name: (place.tree / name).read_bytes() for name in changed}
    try:
        for gate in gates:
            passes(place, gate)
        if need_clean(place.root) != commit:
            raise UsageError("another commit was checked out meanwhile.")
        place.journal().replace(new)
    except KeyboardInterrupt:
        say("the locks are as they were")
        raise
    except VerbError as error:
        for name, content in new.items():
            (place.kept / name).parent.mkdir(parents=True, exist_ok=True)
            (place.kept / name).write_bytes(content)
        raise CommandError(
            f"{error} The locks are as they were; the new ones and the log lie in "
            f"{relative(place.kept)}.",
            error.exit_code,
        ) from None
    say(f"upgraded: {len(changes)} packages in {', '.join(changed)}; every gate passed")
    say("next:     git diff, and commit them; the next verb installs them here")


def passes(place: Place, gate: Gate) -> None:
    """Run a gate in the clone; CommandError where it fails."""
    log = place.kept / f"{gate.name}.log"
    say(f"gate: {gate.name} ({gate.what}); log: {relative(log)}")
    names = {"python": str(place.venv / "bin/python"), "base": sys.executable}
    started = time.monotonic()
    with log.open("wb") as file:
        code = run(place, [word.format(**names) for word in gate.command], file.fileno())
    if code:
        say("\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:]))
        raise CommandError(f"the gate {gate.name} failed (exit code {code}).", FAILED)
    say(f"gate: {gate.name} passed in {time.monotonic() - started:.0f} s")


def run(place: Place, command: list[str], output: int) -> int:
    """Its exit code; ended with all that it started where this verb is interrupted."""
    # not under this make, whose flags would reach the makes below
    outer = {k: v for k, v in environment().items() if not k.startswith(("MAKE", "MFLAGS"))}
    child = subprocess.Popen(
        command,
        cwd=place.tree,
        env={**outer, "HOMEPORT_VENV": str(place.venv)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        return child.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise


def need_clean(root: Path) -> str:
    """The commit; UsageError where tracked files differ from it."""
    changed = git(root, "diff", "--name-only", "HEAD").splitlines()
    if changed:
        raise UsageError(
            f"{len(changed)} tracked files have changes ({changed[0]}, …): git stash or commit "
            "them first, so that git diff shows the upgrade alone."
        )
    return git(root, "rev-parse", "HEAD")


def git(folder: Path, *words: str) -> str:
    code, said = probe(["git", "-C", str(folder), *words], seconds=GRACE_SECONDS)
    if code:
        raise MachineError(f"git {words[0]} failed in {folder}: {said}")
    return said


if __name__ == "__main__":
    run_verb(main)

"""Fresh clones of the working tree, in which the tests type what a user types.

Every test that needs Docker is skipped, with the reason, where no engine answers; nothing else is.
The virtual environment is shared with the checkout: making one takes minutes and is tested on its
own. Images come from the engine's layer cache after their first build.

Two processes can run them: one what rehearses the cloud, whose ports in Docker are fixed, the other
all else.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.runtime import missing_docker
from tests.bases import made_base
from tests.tree import ROOT, files

MINUTE = 60


@dataclass(frozen=True, slots=True)
class Clone:
    """A checkout with a port of its own."""

    folder: Path
    runtime: str
    port: int

    def make(
        self,
        *words: str,
        minutes: float = 15,
        expect: int | None = 0,
        environ: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `make WORDS` as a user would; fails the test on another exit code than `expect`."""
        done = subprocess.run(
            self._command(*words),
            cwd=self.folder,
            env={**self.environ(), **(environ or {})},
            capture_output=True,
            text=True,
            timeout=minutes * MINUTE,
        )
        print(f"$ make {' '.join(words)}\n{done.stdout}{done.stderr}")
        if expect is not None:
            assert done.returncode == expect, done.stderr[-2000:]
        return done

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """`make WORDS` while it runs, in a process group of its own, as in a terminal."""
        make = subprocess.Popen(
            self._command(*words),
            cwd=self.folder,
            env=self.environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield make
        finally:
            if make.poll() is None:
                os.killpg(make.pid, signal.SIGTERM)
            make.communicate()

    def _command(self, *words: str) -> list[str]:
        return ["make", *words, f"RUNTIME={self.runtime}", f"PORT={self.port}"]

    def environ(self) -> dict[str, str]:
        """A user's shell is not under `make test`, whose flags would reach the make below it."""
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        return {**outer, "HOMEPORT_VENV": sys.prefix}

    def shell(self, command: str, expect: int = 0) -> str:
        """Run a command line that the program printed, as a user copies it; its stdout."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == expect, done.stderr
        return done.stdout


def clone(folder: Path, runtime: str) -> Clone:
    """Copy what git tracks, and new files it does not ignore, into `folder`."""
    for path in files():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return Clone(folder, runtime, free_port())


def bring_base(fresh: Clone) -> Path:
    """The base model as a second run finds it, since making it takes minutes; its folder."""
    made = made_base()
    kept = fresh.folder / ".cache" / made.name
    if not kept.exists():
        shutil.copytree(made, kept)
    return kept


def rehearsed(fresh: Clone, *words: str) -> dict[str, Any]:
    """The findings of `make rehearse WORDS`, which passes."""
    done = fresh.make("rehearse", *words, minutes=25)
    report: dict[str, Any] = json.loads(
        Path(fresh.folder, done.stdout.splitlines()[-1]).read_text()
    )
    assert report["passed"]
    assert report["label"] == "rehearsed, not Azure"
    assert "passed: rehearsed, not Azure" in done.stderr
    findings: dict[str, Any] = report["findings"]
    return findings


def networks(clone: Clone) -> str:
    """The engine's networks of this clone, a line each; nothing where Docker is not used."""
    if clone.runtime != "docker":
        return ""
    code = "from scripts.docker import project; print(project())"
    project = clone.shell(shlex.join([sys.executable, "-c", code])).strip()
    return clone.shell(f"docker network ls -q --filter label=com.docker.compose.project={project}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session", params=["docker", "host"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Clone, str]]:
    """A clone in which `make local-serve` has trained and serves, and what it printed.

    Of the two runtimes the second one serves what the first has trained, which saves minutes; that
    both of them train is tested with smaller recipes.
    """
    runtime = request.param
    if runtime == "docker" and (lacking := missing_docker()):
        pytest.skip(f"the Docker runtime was not tested: {lacking}")
    fresh = clone(tmp_path_factory.mktemp("with spaces") / "ホーム $port", runtime)
    trained, runs = tmp_path_factory.getbasetemp() / "trained", fresh.folder / "outputs/tiny-ja"
    bring_base(fresh)
    if trained.is_dir():
        shutil.copytree(trained, runs, symlinks=True)
    try:
        said = fresh.make("local-serve", minutes=25).stderr
        if not trained.is_dir():
            shutil.copytree(runs, trained, symlinks=True)
        yield fresh, said
    finally:
        fresh.make("local-stop", expect=None)

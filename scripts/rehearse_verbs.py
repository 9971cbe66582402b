"""Cloud verbs in processes of their own, many of them: each is a fork of one that has the SDK.

    verbs = Verbs(environ)
    done = verbs.run("cloud-train", RECIPE="recipes/rehearsal.yaml")     # Done(code, out, err, …)
    verb = verbs.start("cloud-deploy"); verb.kill()

What runs is what `make` runs, with the same environment and arguments; only the seconds in which
Python reads the SDK are saved. A verb that does not end in time is killed, and its code is None.
"""

import contextlib
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

from scripts.console import say
from scripts.errors import CommandError
from scripts.settings import ROOT

LIMIT_SECONDS = 120.0
"""No verb takes that long against a local Azure whose jobs take a second."""
NOT_LOGIN = r"^(?!.*(oauth2|openid-configuration))"
"""Paths of requests that trials disturb or kill at: asking for a token changes nothing."""
SDK = (
    "__main__",
    "azure.ai.ml.entities",
    "azure.identity",
    "azure.storage.blob",
    "mlflow",  # which the SDK reads with an endpoint, where it is there
    "openai.resources",
    "requests",
    "scripts.azure.billing",
    "scripts.azure.openai.inventory",
    "scripts.azure.plan",
    "scripts.azure.rollout",
    "scripts.azure.routes.azure_openai",
    "scripts.azure.routes.command_job",
    "scripts.azure.routes.finetuning_job",
    "scripts.azure.routes.registry_pipeline",
    "scripts.azure.saved_image",
)
"""What the process has read from which the verbs are forked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a verb ended."""

    code: int | None
    """Exit code, negative after a signal; None where it was killed because it did not end."""
    out: str
    err: str
    seconds: float


class Verb:
    """One verb that runs, in a process group of its own."""

    def __init__(self, process: ForkServerProcess, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._began = time.monotonic()
        process.start()

    def running(self) -> bool:
        return self._process.is_alive()

    def said(self) -> str:
        """Its stderr so far."""
        file = self._folder / "err"
        return file.read_text(errors="replace") if file.exists() else ""

    def kill(self) -> None:
        """SIGKILL to the whole group; returns when it is gone."""
        pid = self._process.pid or 0
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:  # it has not come to make its group
                os.kill(pid, signal.SIGKILL)
        self._process.join()

    def wait(self, seconds: float = LIMIT_SECONDS) -> Done:
        """Wait for its end."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self.kill()
        took = time.monotonic() - self._began
        out = self._folder / "out"
        text = out.read_text(errors="replace") if out.exists() else ""
        done = Done(code=code, out=text, err=self.said(), seconds=took)
        shutil.rmtree(self._folder)
        return done


class Verbs:
    """Starts verbs with the given environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {**environ, "YES": "1"}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(SDK))
        self._scratch = Path(tempfile.mkdtemp(prefix="homeport-verbs-"))
        self._count = 0

    def start(self, target: str, *flags: str, **variables: str) -> Verb:
        """`make TARGET NAME=value …`, begun."""
        self._count += 1
        folder = self._scratch / str(self._count)
        folder.mkdir()
        module = f"scripts.{target.replace('-', '_')}"
        given = {**self._environ, **variables}
        process = self._context.Process(target=_be, args=(module, flags, given, folder))
        return Verb(process, folder)

    def run(self, target: str, *flags: str, **variables: str) -> Done:
        """The same, to its end."""
        return self.start(target, *flags, **variables).wait()

    def well(self, target: str, *flags: str, **variables: str) -> Done:
        """The same where nothing disturbs it; CommandError where it does not end well."""
        done = self.run(target, *flags, **variables)
        if done.code != 0:  # None as well: it was killed because it did not end
            say(done.err)
            raise CommandError(f"make {target} failed, and was not disturbed; see above", 1)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)


def _be(module: str, flags: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
    """Become the verb, in the new process."""
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environ)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

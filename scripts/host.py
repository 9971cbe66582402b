"""Train and serve without a container: the same train/ and serve/, in a virtual environment.

The server runs in the background; `.cache/serve-<port>.json` remembers its process, and its log is
`outputs/serve-<port>.log`.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts import setup
from scripts.child import run_to_end
from scripts.console import say
from scripts.errors import CommandError, MachineError
from scripts.handed import VARIABLE, handed
from scripts.runtime import Choice
from scripts.settings import CACHE, OUTPUTS, ROOT, without_secrets

LOG_TAIL = 15
STOP_SECONDS = 200
"""Longer than the server waits for answers under way."""


class Host:
    """This machine's own Python."""

    def __init__(self, environ: Mapping[str, str], device: Choice) -> None:
        self.environ = dict(environ)
        for folder in (OUTPUTS, CACHE):
            folder.mkdir(exist_ok=True)
        self.device = device.value

    def prepare(self) -> None:
        """Install what train/ and serve/ need, unless it is there."""
        setup.ensure_runtime(self.device)

    def train(
        self,
        recipe: Path,
        overrides: Sequence[str],
        paths: Mapping[str, Path],
        flags: Sequence[str] = (),
    ) -> None:
        """Train in a process of its own, with the recipe's paths made absolute."""
        self.prepare()
        # after the overrides, which may name the same files as the user sees them
        absolute = [f"{k}={json.dumps(str(path))}" for k, path in paths.items() if k != "recipe"]
        if code := self._run_train(["train", *flags, str(recipe), *overrides, *absolute]):
            if "--check" in flags:
                raise CommandError("this cannot be trained yet; the reason stands above.", code)
            raise CommandError("training did not finish; its own message stands above.", code)

    def download(self, model: str) -> Path:
        """Download a hub model into .cache/models; its folder."""
        self.prepare()
        if code := self._run_train(["train.download", model, str(CACHE / "models")]):
            raise CommandError(f"{model} was not downloaded; the reason stands above.", code)
        return CACHE / "models" / model.replace("/", "--")

    def _run_train(self, module: list[str]) -> int:
        with handed(self.environ, CACHE) as secrets:
            env = {"HF_HOME": str(CACHE / "huggingface"), **without_secrets(self.environ)}
            if secrets:
                env[VARIABLE] = str(secrets)
            return run_to_end([str(setup.python()), "-m", *module], cwd=ROOT, env=env)

    def serve(
        self,
        name: str,
        folder: Path,
        port: int,
        *,
        watch: bool = False,
        debug: int = 0,
        bind: str = "127.0.0.1",
        key: Path | None = None,
    ) -> None:
        """Start the server on `folder` in the background and wait until it answers.

        With `watch` it takes edits of serve/ while it runs; at the port `debug` a debugger can
        attach. It listens at `bind`; with `key`, a file, it answers only whoever sends that.
        """
        self.prepare()
        if debug:
            setup.install("debug", [ROOT / "images/debug.txt"])
        self.stop(port)
        version = CACHE / "azureml-models" / name / "1"
        mount(version, folder)
        log = log_file(port)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [str(setup.python()), "-m", "serve"],
                cwd=ROOT,
                env={
                    # nobody hurries at a breakpoint
                    **({"SERVE_REQUEST_SECONDS": "3600"} if debug else {}),
                    **without_secrets(self.environ),
                    "AZUREML_MODEL_DIR": str(version),
                    "SERVE_HOST": bind,
                    "SERVE_PUBLISHED": "",
                    "SERVE_PORT": str(port),
                    "SERVE_KEY_FILE": str(key or ""),
                    "SERVE_ENGINE_CACHE": str(CACHE / "engine"),
                    **({"SERVE_WATCH": "true"} if watch else {}),
                    **({"SERVE_DEBUG_PORT": str(debug)} if debug else {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        state_file(port).write_text(
            json.dumps({"pid": process.pid, "started": started(process.pid), "model": name})
        )
        while not answers(port):
            if process.poll() is not None:
                say("\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:]))
                raise MachineError("the server did not start; its last lines stand above.")
            time.sleep(0.2)

    def log(self, port: int) -> str:
        return log_file(port).read_text(errors="replace")

    def follow(self, port: int) -> None:
        """Show the server's log as it grows, until interrupted."""
        subprocess.run(["tail", "-n", "100", "-F", str(log_file(port))])

    def running(self) -> list[int]:
        """Ports of this checkout's servers that are alive."""
        ports = (int(path.stem.removeprefix("serve-")) for path in CACHE.glob("serve-*.json"))
        return sorted(port for port in ports if self.pid(port))

    def pid(self, port: int) -> int | None:
        """Process of our server on `port`; None when it ended, even if its number is used again."""
        try:
            state = json.loads(state_file(port).read_text())
        except (FileNotFoundError, ValueError):
            return None
        pid = int(state["pid"])
        return pid if started(pid) == state["started"] and state["started"] else None

    def stop(self, port: int) -> bool:
        """End our server on `port` and wait for it; False where none runs."""
        pid = self.pid(port)
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self.pid(port) and time.monotonic() < deadline:
            # our own child stays a zombie until it is waited for
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)
        if self.pid(port):
            raise MachineError(
                f"process {pid} does not end; see {log_file(port)}, then: kill -9 {pid}"
            )
        state_file(port).unlink(missing_ok=True)
        return True


def state_file(port: int) -> Path:
    return CACHE / f"serve-{port}.json"


def log_file(port: int) -> Path:
    return OUTPUTS / f"serve-{port}.log"


def started(pid: int) -> str:
    """When a process began, as `ps` prints it; a number is used again, the pair is not."""
    done = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True
    )
    state, _, since = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else since.strip()


def mount(version: Path, folder: Path) -> None:
    """Let `version` contain `folder` and nothing else, as the mount of a registered model does."""
    version.mkdir(parents=True, exist_ok=True)
    for old in version.iterdir():
        old.unlink()
    (version / folder.name).symlink_to(folder)


def answers(port: int) -> bool:
    """Whether the server's liveness route answers, as Azure ML's probe would ask it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False

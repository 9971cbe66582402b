"""Really tunes the tiny model on given rows, and really serves what came of it.

    tuned = tune(azure, Wanted(name="ftjob-1", rows=…, form="chat", epochs=3), canceled=…, log=…)
    with serve(azure, "dep-1", tuned.folder) as served:
        host, port = served.address

What Azure's other routes train on its own machines with its own programs is here curated/tune.py
in the train image, on the base model of `tiny` recipes, by which few rows are learnt by heart. The
caller's rows, epochs and seed count; nothing else of Azure's training is claimed. The base is made
once, in `azure.settings.cache`, which takes a minute.
"""

import json
import re
import shlex
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from emulator.azure import Azure
from emulator.deployment_spec import MODELS
from emulator.nodes import Mount, NodeError, Program, Running

LOOK_SECONDS = 0.2
GRACE_SECONDS = 3.0
READY_SECONDS = 600.0
"""Longest wait for a server that still runs."""
LEARNING_RATES = (2e-3, 4e-3)
"""The lowest and the highest for the tiny model; a caller's is meant for one a thousand times as
large."""
LENGTHS = (256, 1024)
"""Of an example in tokens, at least and at most."""
ROOT = "/mnt/homeport"
"""Where a container sees the folders of a tuning."""
PORT = 5001


class TuningError(Exception):
    """The rows cannot be learnt, or the program failed: one sentence. `log` has told the rest."""


class TuningCanceled(TuningError):
    """`canceled` was set; its programs have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be tuned."""

    name: str
    """Unique among those that run; part of folders' and containers' names."""
    rows: Path
    """JSON lines: {"messages": [...]} (chat), or {"text": …, "ground_truth": …} and the like."""
    validation: Path | None = None
    form: Literal["chat", "text"] = "chat"
    keys: tuple[str, str] | None = None
    """Of rows of text: where the prompt and the answer stand, if not under usual names."""
    epochs: float = 1.0
    seed: int = 42
    learning_rate: float | None = None
    """None is the tiny model's own; a caller's is brought within LEARNING_RATES."""
    max_length: int | None = None
    """Of an example in tokens; brought within LENGTHS."""
    checkpoints: bool = False
    """Keep the model of each of the last three epochs too."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step; what is measured on rows held out stands at the steps that end an epoch."""

    step: int
    train_loss: float
    valid_loss: float | None = None
    epoch: float = 0.0
    train_accuracy: float = 0.0
    """Share of the answers' tokens that the model would have written itself."""
    valid_accuracy: float | None = None
    learning_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The model as it was on the way."""

    step: int
    epoch: int
    folder: Path
    train_loss: float
    valid_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came of it."""

    folder: Path
    """config.json, *.safetensors and the tokenizer: a whole model."""
    losses: tuple[Step, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    """Oldest first; the last one is the model itself. Empty unless they were asked for."""


def tune(
    azure: Azure,
    wanted: Wanted,
    *,
    canceled: threading.Event,
    log: Callable[[bytes], None],
    step: Callable[[Step], None] = lambda step: None,
) -> Tuned:
    """Train; `log` gets what the program writes, piece by piece, and `step` each step as it ends.

    What it leaves stays until `forget`. TuningError where it fails, with the program's last line.
    """
    forget(azure, wanted.name)
    folder = _folder(azure, wanted.name)
    for name in ("program", "rows", "out"):
        (folder / name).mkdir(parents=True)
    azure.settings.cache.mkdir(parents=True, exist_ok=True)
    text = resources.files("emulator.curated").joinpath("tune.py").read_text(encoding="utf-8")
    (folder / "program" / "tune.py").write_text(text, encoding="utf-8")
    shutil.copyfile(wanted.rows, folder / "rows" / "train.jsonl")
    if wanted.validation:
        shutil.copyfile(wanted.validation, folder / "rows" / "validation.jsonl")
    mounts = {
        "program": Mount(folder / "program", f"{ROOT}/program", read_only=True),
        "rows": Mount(folder / "rows", f"{ROOT}/rows", read_only=True),
        "out": Mount(folder / "out", f"{ROOT}/out"),
        "cache": Mount(azure.settings.cache, f"{ROOT}/cache"),
    }
    places = {name: azure.nodes.where(mount) for name, mount in mounts.items()}
    program = Program(
        name=f"homeport-tune-{folder.name[:40]}",
        image=azure.settings.train_image,
        command=_command(wanted, places),
        # two trainings at once would else wait for each other by turning round
        environment={"OMP_WAIT_POLICY": "PASSIVE"},
        mounts=tuple(mounts.values()),
    )
    written = _run(azure, program, folder / "out", canceled, log, step)
    if not (folder / "out" / "model" / "config.json").is_file():
        lines = written.decode(errors="replace").strip().splitlines() or ["it wrote nothing."]
        raise TuningError(lines[-1].removeprefix("error: "))
    return _tuned(folder / "out", wanted)


def forget(azure: Azure, name: str) -> None:
    """Remove what the tuning of that name has left."""
    shutil.rmtree(_folder(azure, name), ignore_errors=True)


def _folder(azure: Azure, name: str) -> Path:
    return azure.settings.folder / "tuned" / re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _command(wanted: Wanted, places: Mapping[str, str]) -> str:
    """A bash line: make the base unless it is there, then train."""
    base = (
        "import logging, pathlib, sys; from train import tiny; "
        "logging.basicConfig(level='INFO', format='%(message)s', stream=sys.stderr); "
        "print(tiny.ensure(pathlib.Path(sys.argv[1])))"
    )
    low, high = LEARNING_RATES
    shortest, longest = LENGTHS
    options = {
        "rows": f"{places['rows']}/train.jsonl",
        "form": wanted.form,
        "epochs": f"{wanted.epochs:g}",
        "seed": str(wanted.seed),
        "learning-rate": f"{min(max(wanted.learning_rate or low, low), high):g}",
        "max-length": str(min(max(wanted.max_length or longest, shortest), longest)),
        "name": wanted.name,
        "out": places["out"],
    }
    if wanted.validation:
        options["validation"] = f"{places['rows']}/validation.jsonl"
    if wanted.keys:
        options["keys"] = ",".join(wanted.keys)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    words += ["--checkpoints"] if wanted.checkpoints else []
    cache = shlex.quote(places["cache"])
    return (
        f"set -e; base=$(python -c {shlex.quote(base)} {cache}); "
        f"exec python {shlex.quote(places['program'])}/tune.py "
        f'--base "$base" {shlex.join(words)}'
    )


def _run(
    azure: Azure,
    program: Program,
    out: Path,
    canceled: threading.Event,
    log: Callable[[bytes], None],
    step: Callable[[Step], None],
) -> bytes:
    """Follow the program to its end; all that it wrote."""
    try:
        azure.nodes.pull(program.image)
        running = azure.nodes.start(program)
    except NodeError as error:
        raise TuningError(str(error)) from error
    written, told = b"", 0
    try:
        ended = False
        while not ended:
            ended = running.exit_code() is not None
            now = running.log()
            if len(now) > len(written):
                log(now[len(written) :])
                written = now
            steps = _steps(out)
            for each in steps[told:]:
                step(each)
            told = len(steps)
            if canceled.is_set():
                raise TuningCanceled("It was cancelled.")
            if not ended:
                canceled.wait(LOOK_SECONDS)
    finally:
        running.stop(GRACE_SECONDS)
        running.remove()
    return written


def _steps(out: Path) -> list[Step]:
    """The steps that are written whole."""
    try:
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [Step(**json.loads(line)) for line in lines if line.endswith("\n")]


def _tuned(out: Path, wanted: Wanted) -> Tuned:
    steps = _steps(out)
    if not wanted.checkpoints:
        return Tuned(folder=out / "model", losses=tuple(steps))
    found = [step for step in steps if (out / f"checkpoint-{step.step}").is_dir()]
    kept = [(step, out / f"checkpoint-{step.step}") for step in found]
    kept = [*kept, (steps[-1], out / "model")][-3:]
    return Tuned(
        folder=out / "model",
        losses=tuple(steps),
        checkpoints=tuple(
            Checkpoint(
                step=step.step,
                epoch=max(1, round(step.epoch)),
                folder=folder,
                train_loss=step.train_loss,
                valid_loss=step.valid_loss,
            )
            for step, folder in kept
        ),
    )


class Served:
    """A server that answers for a model."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.address: tuple[str, int] = running.address()
        """Host and port at which this emulator reaches it."""

    def alive(self) -> bool:
        return self._running.exit_code() is None

    def ready(self) -> bool:
        """Whether GET / says so."""
        host, port = self.address
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{host}:{port}/", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def log(self) -> bytes:
        """All that it has written."""
        return self._running.log()

    def stop(self) -> None:
        """End it and take away what is left of it."""
        self._running.stop(GRACE_SECONDS)
        self._running.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


def serve(
    azure: Azure, name: str, folder: Path, *, canceled: threading.Event | None = None
) -> Served:
    """Start the serve image on a model's folder and wait until it is ready.

    `name` is unique among those that run, and part of the container's name. TuningError where it
    ends before, TuningCanceled where `canceled` is set meanwhile. The routes are serve's:
    /v1/chat/completions, /score and the rest, at http://HOST:PORT.
    """
    canceled = canceled or threading.Event()
    own = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:40]
    mount = Mount(folder, f"{MODELS}/{own}/1", read_only=True)
    program = Program(
        name=f"homeport-model-{own}",
        image=azure.settings.serve_image,
        environment={"AZUREML_MODEL_DIR": azure.nodes.where(mount)},
        mounts=(mount,),
        port=PORT,
    )
    try:
        azure.nodes.pull(program.image)
        served = Served(azure.nodes.start(program))
    except NodeError as error:
        raise TuningError(str(error)) from error
    end = time.monotonic() + READY_SECONDS
    try:
        while not served.ready():
            if canceled.is_set():
                raise TuningCanceled("It was cancelled.")
            if not served.alive() or time.monotonic() > end:
                lines = served.log().decode(errors="replace").strip().splitlines()
                raise TuningError(f"The server did not start: {lines[-1] if lines else ''}")
            canceled.wait(LOOK_SECONDS)
    except BaseException:
        served.stop()
        raise
    return served

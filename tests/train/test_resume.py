"""Runs that are killed, stopped, and starved of disk, and must end as if nothing had happened."""

import json
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tree import ROOT
from train import checkpoints

pytestmark = pytest.mark.slow
STEPS = 60
KILLS = 20


class Command:
    """`python -m train` on a small random model, as a process of its own."""

    def __init__(self, folder: Path, model: Path, **training: Any) -> None:
        self.outputs = folder / "outputs"
        self.log = folder / "log"
        self.recipe = folder / "recipe.yaml"
        training = {
            "max_steps": STEPS,
            "max_length": 256,
            "packs_per_step": 2,
            "logging_steps": 4,
            "checkpoint_steps": 3,
            "tracking": False,
            **training,
        }
        self.recipe.write_text(
            f"name: killed\nmodel: {{base: '{model}', dtype: float32}}\n"
            f"data: {{train: {ROOT}/data/japanese_reasoning.jsonl}}\n"
            "lora: {r: 4, dropout: 0.1}\n"  # dropout, so that the random state must come back too
            "evaluation: {rows: 2, max_new_tokens: 4, samples: 1}\n"
            f"training: {json.dumps(training)}\n"
        )

    @property
    def words(self) -> list[str]:
        cache = str(self.outputs / "cache")
        return ["train", str(self.recipe), "--outputs", str(self.outputs), "--cache", cache]

    def start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *self.words],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def fork(self) -> ForkServerProcess:
        """The same in a fork of a process that has read torch already, which saves seconds."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["train.run", __name__])
        process = context.Process(target=_train, args=(self.words, str(self.log)))
        process.start()
        return process

    def finish(self) -> Path:
        """Run to the end; the run's folder."""
        with self.start() as process:
            assert process.stdout
            folder = process.stdout.read().decode().strip()
        assert process.returncode == 0, self.log.read_text()[-2000:]
        return Path(folder)

    def printed(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, line: str, running: Callable[[], bool], after: int) -> bool:
        """Wait until a line that begins so is printed beyond `after` characters of the log."""
        while running():
            if re.search(f"^{line}", self.printed()[after:], re.MULTILINE):
                return True
            time.sleep(0.02)
        return False


def _train(words: list[str], log: str) -> None:
    """`python -m WORDS`, in a process of its own."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # too late for torch, which is read already; for accelerate
    torch.set_num_threads(1)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def losses(folder: Path) -> dict[int, float]:
    history = json.loads((folder / "history.json").read_text())
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def test_twenty_kills_at_random_moments_change_no_loss_and_leave_nothing_half_written(
    tmp_path: Path, random_model: Path
) -> None:
    (tmp_path / "calm").mkdir()
    calm = Command(tmp_path / "calm", random_model).finish()
    (tmp_path / "wild").mkdir()
    wild = Command(tmp_path / "wild", random_model)
    draw = random.Random(0)
    kills = 0
    while kills < KILLS:
        number = draw.choice([signal.SIGKILL, signal.SIGTERM])
        before = len(wild.printed())
        process = wild.fork()
        # every third dies while it loads, prepares or evaluates
        early = kills % 3 == 2
        if wild.wait_for("run: " if early else r"step \d+/", process.is_alive, before):
            time.sleep(draw.uniform(0, 3 if early else 0.4))
        assert process.pid
        os.kill(process.pid, number)
        process.join()
        code = process.exitcode
        kills += 1
        if code == 0:  # it was quicker than the signal
            shutil.rmtree(wild.outputs)
            continue
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 5), wild.printed()[-2000:]
        assert not list(wild.outputs.glob("*/latest"))
        assert not list(wild.outputs.glob("*/*/metrics.json"))
    folder = wild.finish()
    assert len(list(wild.outputs.glob("killed/2*"))) == 1
    assert losses(folder) == pytest.approx(losses(calm), rel=1e-5)
    after = [json.loads((run / "after.json").read_text())["loss"] for run in (folder, calm)]
    assert after[0] == pytest.approx(after[1], rel=1e-5)
    assert not list(folder.rglob("*.part*"))
    assert not (folder / "checkpoints").exists()
    assert "Traceback" not in wild.printed()


def test_a_signal_within_a_long_step_is_answered_before_the_step_ends(
    tmp_path: Path, random_model: Path
) -> None:
    calm = Command(tmp_path, random_model, max_steps=4, packs_per_step=24, logging_steps=1)
    wanted = losses(calm.finish())
    shutil.rmtree(calm.outputs)
    before = len(calm.printed())
    with calm.start() as process:
        assert calm.wait_for(r"step \d+/", lambda: process.poll() is None, before)
        time.sleep(0.3)
        process.terminate()
        began = time.monotonic()
        assert process.wait() == 5
        assert time.monotonic() - began < 25
    (run,) = calm.outputs.glob("killed/2*")
    newest = checkpoints.newest(run / "checkpoints")
    assert newest
    assert 1 <= checkpoints.step(newest) < 4
    assert losses(calm.finish()) == pytest.approx(wanted, rel=1e-5)


def test_a_full_disk_ends_with_a_sentence_and_the_last_checkpoint_intact(
    tmp_path: Path, random_model: Path
) -> None:
    """On a small file system of its own, which a user namespace may mount."""
    wild = Command(tmp_path, random_model, checkpoint_steps=1, keep_checkpoints=100)
    wild.outputs.mkdir()
    fill = (
        f"mount -t tmpfs -o size=12m none '{wild.outputs}' && cd '{ROOT}' && "
        f"'{sys.executable}' -m train '{wild.recipe}' --outputs '{wild.outputs}' "
        f"--cache '{tmp_path}/cache'; code=$?; cp -r '{wild.outputs}' '{tmp_path}/left'; exit $code"
    )
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    if subprocess.run([*unshare, "mount -t tmpfs none /mnt"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    done = subprocess.run(
        [*unshare, fill],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    said = re.search(r"error: the disk of .* is full; (checkpoint-\d+) is intact", done.stderr)
    assert said, done.stderr[-2000:]
    (run,) = (tmp_path / "left").glob("killed/2*")
    newest = checkpoints.newest(run / "checkpoints")
    assert newest
    assert newest.name == said.group(1)

"""Nodes that stand for the training program: it is done at once, and the model is a few bytes."""

import json
import threading
from pathlib import Path

from emulator.nodes import Mount, NodeError, Program, Running
from emulator.tuning import ROOT

STEPS = 3


class QuickNodes:
    """Writes what curated/tune.py would; `hold` keeps it running, `fails` is its last words."""

    mode = "host"

    def __init__(self) -> None:
        self.started: list[Program] = []
        self.hold = threading.Event()
        self.fails = ""
        self.missing = False

    def where(self, mount: Mount) -> str:
        return str(mount.folder)

    def pull(self, image: str) -> None:
        if self.missing:
            raise NodeError(f"{image} is not on this machine.")

    def start(self, program: Program) -> Running:
        self.started.append(program)
        if not self.fails:
            write(next(m.folder for m in program.mounts if m.path == f"{ROOT}/out"))
        return QuickProgram(self)

    def close(self) -> None:
        pass


class QuickProgram:
    """One run of it."""

    def __init__(self, nodes: QuickNodes) -> None:
        self._nodes = nodes
        self._stopped = False

    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", 9)

    def log(self) -> bytes:
        return (self._nodes.fails or "step 1/3\nstep 2/3\nstep 3/3").encode() + b"\n"

    def exit_code(self) -> int | None:
        if self._nodes.hold.is_set() and not self._stopped:
            return None
        return 1 if self._nodes.fails else 0

    def wait(self, seconds: float) -> int | None:
        return self.exit_code()

    def stop(self, grace: float) -> None:
        self._stopped = True

    def remove(self) -> None:
        pass


def write(out: Path) -> None:
    """Three steps, and a folder that looks like a model."""
    lines = [
        {
            "step": step,
            "epoch": step / STEPS,
            "train_loss": 3.0 - step / 2,
            "train_accuracy": 0.5,
            "learning_rate": 1e-3,
            **({"valid_loss": 2.0, "valid_accuracy": 0.5} if step == STEPS else {}),
        }
        for step in range(1, STEPS + 1)
    ]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = out / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "gpt_oss", "architectures": ["GptOss"]}')
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "tokenizer.json").write_text("{}")
    (model / "tokenizer_config.json").write_text("{}")

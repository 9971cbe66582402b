"""What stands for training and serving where only the cloud around them is tried: a second each.

    python stand_in.py train RECIPE --outputs DIR --model DIR … [key=value …]  # python -m train
    python stand_in.py tune --rows FILE --out DIR …                            # curated/tune.py
    python stand_in.py serve                                                   # python -m serve

It reads what it is given, writes files of the same names, goes on from its checkpoint and answers
on the same routes. The "weights" are a hash of the rows, so that the same rows give the same bytes
and other rows do not. It learns nothing, and needs nothing but Python.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STEP_SECONDS = 0.1
WEIGHTS = "model.safetensors"


def train(words: list[str]) -> None:
    """One job: a run that can be taken away at any step, and its model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cache")
    given, overrides = parser.parse_known_args(words)
    recipe = given.recipe.read_text(encoding="utf-8")
    runs = given.outputs / _setting(recipe, "name")
    left = [run for run in sorted(runs.glob("*")) if not (run / "metrics.json").exists()]
    run = left[-1] if left else runs / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid():05x}")
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoints" / "step"
    checkpoint.parent.mkdir(exist_ok=True)
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    if done:
        tell(f"resume: goes on from step {done}")
    steps = int(_setting(recipe, "max_steps"))
    for step in range(done + 1, steps + 1):
        time.sleep(STEP_SECONDS)
        checkpoint.write_text(str(step))
        tell(f"step {step}/{steps}")
    places = (word.partition("=")[2] for word in overrides if word.startswith("data."))
    weights = write_model(given.model / "merged", _bytes(map(Path, places)))
    write_model(run / "merged", _bytes([given.model / "merged" / WEIGHTS]))
    (run / "metrics.json").write_text(json.dumps({"weights": weights}))
    tell(f"model: {WEIGHTS} has sha256:{weights}")


def tune(words: list[str]) -> None:
    """One fine-tuning of a service of Azure: an epoch is a step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--checkpoints", action="store_true")
    given, _ = parser.parse_known_args(words)
    steps = max(1, round(given.epochs))
    rows = _bytes([given.rows])
    for step in range(1, steps + 1):
        time.sleep(STEP_SECONDS)
        if given.checkpoints and step < steps:
            write_model(given.out / f"checkpoint-{step}", rows + bytes([step]))
        line = {"step": step, "epoch": step, "train_loss": 3 / step, "train_accuracy": 0.5}
        held_out = {"valid_loss": 3 / step, "valid_accuracy": 0.5} if given.validation else {}
        with (given.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({**line, "learning_rate": 1e-3, **held_out}) + "\n")
        tell(f"step {step}/{steps}")
    write_model(given.out / "model", rows)


def write_model(folder: Path, seed: bytes) -> str:
    """A folder that looks like a model; the hash of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    weights = hashlib.sha256(seed).digest() * 1000
    (folder / WEIGHTS).write_bytes(weights)
    config = {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return hashlib.sha256(weights).hexdigest()


def tell(line: str) -> None:
    """Into the log."""
    print(line, flush=True)  # noqa: T201 - a node keeps what its program prints


def _setting(recipe: str, name: str) -> str:
    """A value of the recipe, which our own YAML writer made; the emulator's image has no reader."""
    found = re.search(rf"^\s*{name}: (\S+)$", recipe, re.MULTILINE)
    if not found:
        raise SystemExit(f"error: the recipe has no {name}")
    return found[1].strip("'\"")


def _bytes(places: Any) -> bytes:
    """What lies there, files in the order of their names."""
    text = b""
    for place in places:
        files = sorted(f for f in place.rglob("*") if f.is_file()) if place.is_dir() else [place]
        text += b"".join(file.read_bytes() for file in files)
    return text


class Server(BaseHTTPRequestHandler):
    """Says which weights it has been given, whatever it is asked."""

    protocol_version = "HTTP/1.1"
    weights = ""

    def do_GET(self) -> None:
        self._send({"status": "ok"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = f"I stand for the model {self.weights}."
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if self.path == "/score":
            self._send({"output": said, "reasoning": "", "finish_reason": "stop", "usage": usage})
            return
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "finish_reason": "stop", "text": said, "message": message}
        kind = "chat.completion" if "chat" in self.path else "text_completion"
        known = {"id": "stand-in", "object": kind, "created": 0, "model": "stand-in"}
        self._send({**known, "choices": [choice], "usage": usage})

    def _send(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def serve() -> None:
    """Until it is killed."""
    found = sorted(Path(os.environ["AZUREML_MODEL_DIR"]).rglob(WEIGHTS))
    if not found:
        raise SystemExit("error: there is no model")
    Server.weights = hashlib.sha256(found[0].read_bytes()).hexdigest()[:12]
    address = (os.environ["SERVE_HOST"], int(os.environ["SERVE_PORT"]))
    ThreadingHTTPServer(address, Server).serve_forever()


if __name__ == "__main__":
    match sys.argv[1]:
        case "train":
            train(sys.argv[2:])
        case "tune":
            tune(sys.argv[2:])
        case _:
            serve()

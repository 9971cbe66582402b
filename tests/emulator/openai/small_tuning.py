"""Stands for tuning.py: learns nothing in no time, and a small server answers.

What it is asked is kept, so that tests see what the real one would get.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from emulator.azure import Azure
from emulator.tuning import Checkpoint, Step, Tuned, TuningCanceled, TuningError, Wanted

LOSSES = ((2.0, 2.1), (0.9, 1.2), (0.4, 1.1), (0.2, 1.3))
"""Of training and validation, epoch by epoch."""


class SmallTuning:
    """`tune` and `serve` of the tests."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []
        self.rows: list[str] = []
        self.served: list[SmallServed] = []
        self.failure = ""
        """Why trainings fail; they do not where it is empty."""
        self.hold = threading.Event()
        """Trainings wait for it."""
        self.hold.set()

    def tune(
        self,
        azure: Azure,
        wanted: Wanted,
        *,
        canceled: threading.Event,
        log: Callable[[bytes], None],
        step: Callable[[Step], None],
    ) -> Tuned:
        self.wanted.append(wanted)
        self.rows.append(wanted.rows.read_text(encoding="utf-8"))
        log(b"training\n")
        while not self.hold.wait(0.02):
            if canceled.is_set():
                raise TuningCanceled("The training was cancelled.")
        if self.failure:
            raise TuningError(self.failure)
        steps, checkpoints = [], []
        for epoch, (train, valid) in enumerate(LOSSES, 1):
            valid_loss = valid if wanted.validation else None
            folder = azure.settings.folder / "tuned" / wanted.name / str(epoch)
            folder.mkdir(parents=True)
            steps.append(Step(epoch * 5, train, valid_loss, float(epoch), 0.5))
            step(steps[-1])
            checkpoints.append(Checkpoint(epoch * 5, epoch, folder, train, valid_loss))
        return Tuned(
            folder=checkpoints[-1].folder, losses=tuple(steps), checkpoints=tuple(checkpoints[1:])
        )

    def serve(
        self, azure: Azure, name: str, folder: Path, *, canceled: threading.Event | None = None
    ) -> "SmallServed":
        self.served.append(SmallServed(folder))
        return self.served[-1]


class SmallServed:
    """A server whose answer names the folder that it serves and repeats what it was asked."""

    def __init__(self, folder: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if "model" in asked:
                    self.send_error(400)
                    return
                if asked.get("stream"):
                    self.stream()
                    return
                message = {"role": "assistant", "content": f"{self.path} {folder.name}"}
                body = json.dumps(
                    {
                        "id": "chat-1",
                        "object": "chat.completion",
                        "created": 1,
                        "model": "served",
                        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                    }
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for word in ("Can", "berra"):
                    delta = {"index": 0, "delta": {"content": word}}
                    chunk = {"id": "1", "object": "chat.completion.chunk", "choices": [delta]}
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.folder = folder
        self.stopped = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = ("127.0.0.1", self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def log(self) -> bytes:
        return b""

    def stop(self) -> None:
        self.stopped = True
        self._server.shutdown()
        self._server.server_close()

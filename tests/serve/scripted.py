"""A server of one model that says by the letter of the API what a test wrote for it.

The chat page's counterpart in its tests; it knows the routes and the stream, and no model.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from serve import pages

PAGE = Path(__file__).resolve().parents[2] / "serve" / "playground.html"

Step = dict[str, Any] | str | threading.Event | float
"""A chunk, a raw piece of stream, something to wait for, or seconds to sleep."""


def delta(**said: str) -> Step:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": None}]}


def end(reason: str = "stop", tokens: int = 12, **beside: Any) -> list[Step]:
    """The last choice, the usage after it, and the mark."""
    choice = {"index": 0, "delta": {}, "finish_reason": reason, **beside}
    usage = {"prompt_tokens": 34, "completion_tokens": tokens, "total_tokens": 34 + tokens}
    return [{"choices": [choice]}, {"choices": [], "usage": usage}, "data: [DONE]\n\n"]


@dataclass
class Refusal:
    status: int
    error: dict[str, Any]


@dataclass
class Scripted:
    """A server of one model. `script` is what every question is answered with."""

    model: str = "tiny-ja"
    script: list[Step] | Refusal = field(default_factory=lambda: [delta(content="はい。"), *end()])
    ready: list[int] = field(default_factory=lambda: [200])
    """Statuses of /readyz, one a call; the last one stays."""
    key: str = ""
    """Where it is set, only who sends it learns the models' names."""
    cors: bool = False
    paths: list[str] = field(default_factory=list)
    """Of the questions; `bodies` and `keys` (Authorization) go with them."""
    bodies: list[bytes] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """The client closed the connection while it was being answered."""
    url: str = ""

    def asked(self, index: int = -1) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.bodies[index])
        return body


def handler(scripted: Scripted) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def end_headers(self) -> None:
            if scripted.cors:
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Access-Control-Allow-Headers", "authorization, content-type")
            super().end_headers()

        def reply(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def json(self, status: int, value: object) -> None:
            self.reply(status, json.dumps(value).encode(), Content_Type="application/json")

        def do_OPTIONS(self) -> None:
            self.reply(204 if scripted.cors else 405, b"")

        def do_GET(self) -> None:
            if self.path == "/playground":
                page = PAGE.read_text(encoding="utf-8")
                self.reply(
                    200,
                    page.encode(),
                    Content_Type="text/html; charset=utf-8",
                    Content_Security_Policy=pages.policy(page),
                )
            elif self.path == "/readyz":
                status = scripted.ready.pop(0) if len(scripted.ready) > 1 else scripted.ready[0]
                waiting = {"status": "loading", "error": {"message": "…", "retry_after": 1}}
                self.json(status, {"engine": "transformers"} if status == 200 else waiting)
            elif self.path == "/v1/models" and scripted.key not in self.headers.get(
                "Authorization", ""
            ):
                self.json(401, {"error": {"message": "the key"}})
            elif self.path == "/v1/models":
                self.json(200, {"object": "list", "data": [{"id": scripted.model}]})
            else:
                self.json(404, {"error": {"message": f"{self.path} is not here."}})

        def do_POST(self) -> None:
            scripted.paths.append(self.path)
            scripted.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            scripted.keys.append(self.headers["Authorization"])
            if isinstance(scripted.script, Refusal):
                return self.json(scripted.script.status, {"error": scripted.script.error})
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                for step in scripted.script:
                    self.take(step)
            except (BrokenPipeError, ConnectionResetError):
                scripted.left.set()

        def take(self, step: Step) -> None:
            if isinstance(step, float):
                time.sleep(step)
            elif isinstance(step, str):
                self.wfile.write(step.encode())
            elif isinstance(step, dict):
                self.wfile.write(f"data: {json.dumps(step, ensure_ascii=False)}\n\n".encode())
            else:
                while not step.wait(0.05):
                    self.wfile.write(b": ping\n\n")

    return Handler

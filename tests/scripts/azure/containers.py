"""Containers of the tests: small HTTP servers in threads, which do what `Kitchen` says.

    kitchen = Kitchen()
    with bare_azure(folder, nodes=kitchen) as server, environment(server): ...

They take the place of the serve image on the local Azure's nodes, so that a deployment is ready in
milliseconds and can be made to fail.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from emulator.nodes import Mount, NodeError, Program

ANSWER: dict[str, Any] = {
    "output": "キャンベラ",
    "choices": [{"text": "キャンベラ", "message": {"content": "キャンベラ"}}],
}
"""In our server's own form and in OpenAI's two."""

OF_MLFLOW = "serve"
"""What the local Azure serves an MLflow model with where a deployment names no environment."""


class Kitchen:
    """Nodes that start such containers; what is set here holds for those that start later."""

    mode = "host"

    def __init__(self) -> None:
        self.pulled = 0
        self.started: list[Container] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Program and body of each request to /score."""
        self.reset()

    def reset(self) -> None:
        """All is well."""
        self.status = 200
        """Of the answers to /score."""
        self.stops_after = 1_000_000
        """Answers of a container before it says 500."""
        self.crashes = ""
        """Where set, a container writes this and ends with exit code 3."""
        self.pull_seconds = 0.0

    def where(self, mount: Mount) -> str:
        return str(mount.folder)

    def pull(self, image: str) -> None:
        self.pulled += 1
        time.sleep(self.pull_seconds)
        if image != OF_MLFLOW and not image.startswith("homeportrehearsal.azurecr.io/"):
            raise NodeError(f"{image} is not in the registry.")

    def start(self, program: Program) -> "Container":
        self.started.append(Container(program, self))
        return self.started[-1]

    @property
    def alive(self) -> list["Container"]:
        return [container for container in self.started if container.exit_code() is None]

    def close(self) -> None:
        for container in self.alive:
            container.stop(0)


class Container:
    """One server, or one that ended at once."""

    def __init__(self, program: Program, kitchen: Kitchen) -> None:
        self.program = program
        self._log = b"serving\n"
        self._code: int | None = None
        self._ended = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        if kitchen.crashes:
            self._log, self._code = kitchen.crashes.encode(), 3
            return
        status, left = kitchen.status, kitchen.stops_after

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(200, {})

            def do_POST(self) -> None:
                nonlocal left
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                left -= 1
                kitchen.asked.append((program.name, body))
                if status == 200 and left >= 0:
                    self.reply(200, ANSWER)
                else:
                    self.reply(max(status, 400), {"error": {"message": "the model said no"}})

            def reply(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name=program.name, daemon=True
        ).start()

    def address(self) -> tuple[str, int]:
        if self._server is None:
            return "127.0.0.1", 9  # nothing listens there
        return "127.0.0.1", int(self._server.server_address[1])

    def log(self) -> bytes:
        return self._log

    def exit_code(self) -> int | None:
        return self._code

    def wait(self, seconds: float) -> int | None:
        self._ended.wait(seconds)
        return self._code

    def stop(self, grace: float) -> None:
        if self._server and self._code is None:
            self._code = 0
            self._server.shutdown()
            self._server.server_close()
        self._ended.set()

    def remove(self) -> None:
        pass

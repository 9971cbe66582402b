"""An editor's side of the Debug Adapter Protocol, as far as attaching and breakpoints go."""

import json
import queue
import socket
import threading
from pathlib import Path
from typing import Any

SECONDS = 20


class Editor:
    """Attached to a program that listens for a debugger; all paths are those of the editor."""

    def __init__(self, port: int, settings: dict[str, Any]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._socket.settimeout(None)  # its reader waits as long as nothing is said
        self._stream = self._socket.makefile("rb")
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._responses: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._number = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ask("initialize", adapterID="test", pathFormat="path", linesStartAt1=True)
        self._attached = self._send("attach", settings)  # answered when the configuration is done
        self.event("initialized")

    def breakpoint(self, file: Path, line: int) -> bool:
        """Set one; whether the program knows the place."""
        source = {"path": str(file)}
        body = self.ask("setBreakpoints", source=source, breakpoints=[{"line": line}])
        return bool(body["breakpoints"][0]["verified"])

    def begin(self) -> None:
        """Breakpoints are set, requests may come."""
        self.ask("configurationDone")
        self._wait(self._attached)

    def stopped(self) -> dict[str, Any]:
        """The frame in which the program has just stopped."""
        self._thread = self.event("stopped")["threadId"]
        frames = self.ask("stackTrace", threadId=self._thread)["stackFrames"]
        found: dict[str, Any] = frames[0]
        return found

    def value(self, expression: str, frame: dict[str, Any]) -> str:
        return str(self.ask("evaluate", expression=expression, frameId=frame["id"])["result"])

    def go_on(self) -> None:
        self.ask("continue", threadId=self._thread)

    def close(self) -> None:
        """Detach; the program runs on without breakpoints."""
        self.ask("disconnect", terminateDebuggee=False)
        self._socket.shutdown(socket.SHUT_RDWR)  # ends the reader
        self._reader.join(SECONDS)
        self._stream.close()
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        return self._wait(self._send(command, arguments))

    def event(self, name: str) -> Any:
        while True:
            event = self._events.get(timeout=SECONDS)
            if event["event"] == name:
                return event.get("body", {})

    def _send(self, command: str, arguments: dict[str, Any]) -> int:
        self._number += 1
        self._responses[self._number] = queue.Queue()
        message = {"seq": self._number, "type": "request"}
        body = json.dumps({**message, "command": command, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self._number

    def _wait(self, number: int) -> Any:
        response = self._responses[number].get(timeout=SECONDS)
        assert response["success"], response
        return response.get("body")

    def _read(self) -> None:
        while header := self._stream.readline():
            length = int(header.split(b":")[1])
            self._stream.readline()
            message = json.loads(self._stream.read(length))
            if message["type"] == "event":
                self._events.put(message)
            elif message["type"] == "response":
                self._responses[message["request_seq"]].put(message)

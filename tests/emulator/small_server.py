"""A container of the tests: a small HTTP server that does what its variables and paths say.

python small_server.py      listens on 127.0.0.1:$PORT

$START_SECONDS      sleeps before it listens
$HEALTH             status of GET /; POST /health/N changes it
$HEALTH_SECONDS     how long GET / takes
$EXIT               ends with this code instead of listening
POST /score         what came, as JSON
/status/N           answers with that status
/slow?seconds=S     sleeps, then answers
/stream?seconds=S   three parts, S seconds between two
"""

import json
import os
import sys
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    health = int(os.environ.get("HEALTH", "200"))

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/":
            time.sleep(float(os.environ.get("HEALTH_SECONDS", "0")))
            self.answer(Handler.health, b"Healthy")
        elif url.path.startswith("/health/"):
            Handler.health = int(url.path.rpartition("/")[2])
            self.answer(200, b"")
        elif url.path.startswith("/status/"):
            self.answer(int(url.path.rpartition("/")[2]), b'{"error": "as asked"}')
        elif url.path == "/stream":
            self.stream(float(query["seconds"]))
        else:
            time.sleep(float(query.get("seconds", "0")))
            seen = {
                "path": self.path,
                "method": self.command,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body": body.decode(),
                "environment": dict(os.environ),
            }
            self.answer(200, json.dumps(seen).encode())

    do_POST = do_GET

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(3):
            part = f"part {number}\n".encode()
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            time.sleep(seconds)
        self.wfile.write(b"0\r\n\r\n")


def main() -> None:
    print("starting", os.environ.get("AZUREML_MODEL_DIR", ""), flush=True)
    if code := os.environ.get("EXIT"):
        print("no such module", flush=True)
        sys.exit(int(code))
    time.sleep(float(os.environ.get("START_SECONDS", "0")))
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()

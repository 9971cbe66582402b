import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from scripts import local_key, local_stop
from scripts.errors import MachineError, UsageError


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "serve-key"
    monkeypatch.setattr(local_key, "KEY_FILE", path)
    return path


def test_the_key_is_made_once_long_and_for_this_user_alone(file: Path) -> None:
    assert local_key.make() == file
    key = local_key.read()
    assert len(key) == 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    local_key.make()
    assert local_key.read() == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["serve-key"]


def test_it_alone_is_printed_and_without_one_the_next_command_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["local_key"])
    with pytest.raises(UsageError, match="next: make local-serve KEY=1"):
        local_key.main()
    local_key.make()
    local_key.main()
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{local_key.read()}\n", "")


class Handler(BaseHTTPRequestHandler):
    keys: ClassVar[list[str | None]] = []
    status = 401

    def do_GET(self) -> None:
        self.keys.append(self.headers["Authorization"])
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(Handler, "keys", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


class Ours:
    def __init__(self, port: int) -> None:
        self.ports = [port]

    def running(self) -> list[int]:
        return self.ports


def test_a_server_of_ours_that_asks_for_the_key_gets_it(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_key.make()
    monkeypatch.setattr(local_stop, "runtimes", lambda: [Ours(port)])
    assert local_key.headers(port) == {"Authorization": f"Bearer {local_key.read()}"}
    assert Handler.keys == [None]  # it was asked without


def test_another_program_never_gets_it_and_a_server_without_a_key_is_sent_none(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_key.make()
    monkeypatch.setattr(local_stop, "runtimes", lambda: [Ours(port + 1)])
    with pytest.raises(MachineError, match=f"port {port} asks for a key, and is not one of this"):
        local_key.headers(port)
    monkeypatch.setattr(Handler, "status", 200)
    assert local_key.headers(port) == {}
    assert Handler.keys == [None, None]
    assert local_key.headers(1) == {}

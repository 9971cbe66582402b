"""A debugger at the running server, over the protocol that editors speak."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from scripts import setup
from serve import debugging
from serve.errors import StartupError
from serve.settings import Settings
from tests.serve.dap import Editor
from tests.serve.test_server import ROOT, Env, Server

SCORE, DIALECT = ROOT / "serve/score.py", ROOT / "serve/dialects/score.py"


def line_of(file: Path, text: str) -> int:
    (found,) = [n for n, line in enumerate(file.read_text().splitlines(), 1) if text in line]
    return found


def attach_settings() -> dict[str, Any]:
    """Those of the editor's own configuration, which F5 takes."""
    launch = json.loads((ROOT / ".vscode/launch.json").read_text())
    (found,) = [c for c in launch["configurations"] if c["name"] == "Attach to score.py"]
    return {key: value for key, value in found.items() if key != "connect"}


@pytest.fixture(scope="module")
def debugged(
    server_env: Env, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, int]]:
    """A server that runs a copy of serve/ in another place, as a container does, and its port."""
    with pytest.MonkeyPatch.context() as patch:  # as make local-debug does on first use
        patch.setenv("HOMEPORT_VENV", sys.prefix)
        setup.install("debug", [ROOT / "images/debug.txt"])
    place = tmp_path_factory.mktemp("opt") / "ホーム port"
    shutil.copytree(ROOT / "serve", place / "serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    env = server_env(
        SERVE_DEBUG_PORT=str(port),
        SERVE_REQUEST_SECONDS="3600",
        PATHS_FROM_ECLIPSE_TO_PYTHON=json.dumps([[str(ROOT), str(place)]]),
    )
    server = Server(env, tmp_path_factory.mktemp("log") / "server.log", place)
    try:
        server.wait_until_ready()
        yield server, port
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)


@pytest.mark.slow
def test_a_breakpoint_in_score_and_in_a_dialect_is_hit_and_the_answer_arrives(
    debugged: tuple[Server, int],
) -> None:
    server, port = debugged
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    for address in [a for a in addresses if ":" not in a]:
        with socket.socket() as other, pytest.raises(OSError):
            other.connect((address, port))
    for _ in range(2):  # a second editor finds what the first one found
        editor = Editor(port, attach_settings())
        places = [
            (SCORE, line_of(SCORE, "return server.handle(request)")),
            (DIALECT, line_of(DIALECT, "def parse(self") + 1),
        ]
        assert all(editor.breakpoint(*place) for place in places)
        editor.begin()
        with ThreadPoolExecutor() as pool, closing(editor):  # nothing stays stopped behind it
            answer = pool.submit(server.score, prompt="x", max_new_tokens=2)
            for file, line in places:
                frame = editor.stopped()
                assert (frame["source"]["path"], frame["line"]) == (str(file), line)
                if file == SCORE:
                    assert editor.value("request.path", frame) == "'/score'"
                    # the probe is answered meanwhile, and the request is not given up
                    assert server.ask("GET", "/", timeout=5)[0] == 200
                assert not answer.done()
                editor.go_on()
            assert answer.result(30)[0] == 200
        assert server.score(prompt="x", max_new_tokens=2)[0] == 200


def test_without_the_setting_nothing_listens_and_azures_limit_holds() -> None:
    assert Settings().debug_port == 0
    assert Settings(debug_port=5678).debug_host == "127.0.0.1"
    assert Settings(debug_port=5678, request_seconds=3600).drain_seconds < 60
    with pytest.raises(StartupError, match="below 180"):
        Settings(request_seconds=3600)


def test_without_debugpy_the_server_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "debugpy", None)
    debugging.listen(Settings(debug_port=5678))
    assert "debugpy is not installed; next: make local-debug" in caplog.text

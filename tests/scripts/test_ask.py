import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from scripts import ask
from scripts.azure import client, images, routes
from scripts.azure.routes import Answer
from scripts.errors import CommandError, MachineError, UsageError
from tests.scripts.azure.stand_ins import cloud_of


class Handler(BaseHTTPRequestHandler):
    status = 200
    answer: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps(type(self).answer).encode()
        self.send_response(type(self).status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Handler.status = 200
    Handler.answer = {"output": "キャンベラ", "reasoning": "首都", "model": "tiny-ja"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    monkeypatch.setattr(
        images, "remember_answer", lambda port, *, model="": found.append((port, model))
    )
    return found


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    for name in ("PROMPT", "PORT", "TARGET", "JSON", "RECIPE", "SET", "ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["ask", *arguments])
    ask.main()


def test_a_good_answer_is_printed_and_its_image_is_remembered(
    port: int,
    remembered: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, "--port", str(port), "--prompt", "x")
    shown = capsys.readouterr()
    assert shown.out == "キャンベラ\n"
    assert "reasoning: 首都" in shown.err and "curl -s" in shown.err
    assert remembered == [(port, "tiny-ja")]


def test_json_is_the_whole_answer(
    port: int,
    remembered: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, "--port", str(port), "--prompt", "x", "--json")
    assert json.loads(capsys.readouterr().out) == Handler.answer


def test_an_error_is_told_and_proves_nothing_of_the_image(
    port: int, remembered: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Handler.status, Handler.answer = 400, {"error": {"message": "prompt is too long"}}
    with pytest.raises(CommandError, match="HTTP 400: prompt is too long"):
        run(monkeypatch, "--port", str(port), "--prompt", "x")
    assert remembered == []


def test_no_server_is_told_with_the_next_command(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        MachineError, match="no server answers on port 1025; next: make local-serve"
    ):
        run(monkeypatch, "--port", "1025", "--prompt", "x")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "moon", "--prompt", "x"], "TARGET is 'moon': use local or cloud"),
        (["--target", "cloud"], "PROMPT is empty"),
        (["--prompt", "x", "--port", "80"], "use a number from 1024"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(monkeypatch, *arguments)


class Model:
    """A route of one model."""

    def curl(self, cloud: Any, recipe: Any, prompt: str) -> str:
        return f"curl {prompt}"

    def ask(self, cloud: Any, recipe: Any, prompt: str) -> Answer:
        return Answer(
            output="キャンベラ",
            reasoning="首都",
            by="geo, deployment blue-1",
            body={"choices": []},
            prompt_tokens=7,
            completion_tokens=3,
        )


@pytest.mark.parametrize(("flags", "out"), [([], "キャンベラ"), (["--json"], '{"choices": []}')])
def test_whichever_route_serves_the_answer_is_shown_the_same_way(
    flags: list[str],
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(routes, "of", lambda recipe: Model())
    monkeypatch.setattr(client, "connect", cloud_of)
    run(monkeypatch, "--target", "cloud", "--prompt", "x", *flags)
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    told = ["curl x", "answered by geo, deployment blue-1"]
    told += ["tokens: 7 of the prompt, 3 answered"]
    assert shown.err.splitlines()[:3] == told

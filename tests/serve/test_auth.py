"""The key: who has it, and that a real server shows strangers nothing but its probes."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from serve import auth, metrics
from serve.errors import StartupError
from tests.serve.test_server import Env, Server, running

KEY = "the-key_of-this-Server-0123456789"
WRONG = "another-key-of-the-same-length-09"


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f" {KEY}\r\n"])
def test_the_file_holds_one_key_whatever_an_editor_put_around_it(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "key").write_text(content)
    assert auth.read(str(tmp_path / "key")) == KEY.encode()


@pytest.mark.parametrize("content", ["", "short", f"{KEY} {KEY}", f"{KEY}\n{KEY}", "鍵" * 16])
def test_a_key_that_could_not_be_sent_or_could_be_guessed_is_refused_and_not_repeated(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(StartupError, match="must hold one key: at least 16") as caught:
        auth.read(str(tmp_path / "key"))
    assert not content or content not in str(caught.value)


def asked(**environ: str) -> tuple[str, dict[str, str], list[str]]:
    """The guard's answer to a GET of /score: status, headers, and who was told of a refusal."""
    told: list[str] = []
    got: dict[str, Any] = {}

    def app(environ: auth.Environ, start: auth.Start) -> list[bytes]:
        assert not {"HTTP_AUTHORIZATION", "HTTP_API_KEY"} & set(environ)  # it goes no further
        start("200 OK", [])
        return [b"in"]

    guard = auth.Guard(app, KEY.encode(), refused=lambda environ: told.append(environ["PATH_INFO"]))
    given = {"REQUEST_METHOD": "GET", "PATH_INFO": "/score", **environ}
    guard(given, lambda status, headers: got.update(status=status, headers=dict(headers)))
    return got["status"], got["headers"], told


@pytest.mark.parametrize(
    "sent",
    [
        {"HTTP_AUTHORIZATION": f"Bearer {KEY}"},
        {"HTTP_AUTHORIZATION": f"bearer   {KEY} "},
        {"HTTP_API_KEY": KEY},
        {"HTTP_AUTHORIZATION": f"Bearer {WRONG}", "HTTP_API_KEY": KEY},
    ],
)
def test_both_ways_to_send_the_key_lead_in(sent: dict[str, str]) -> None:
    assert asked(**sent) == ("200 OK", {}, [])


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"HTTP_AUTHORIZATION": f"Bearer {WRONG}"},
        {"HTTP_AUTHORIZATION": KEY},
        {"HTTP_AUTHORIZATION": f"Basic {KEY}"},
        {"HTTP_AUTHORIZATION": f"Bearer {KEY}, Bearer {KEY}"},  # the header given twice
        {"HTTP_AUTHORIZATION": "Bearer"},
        {"HTTP_API_KEY": KEY[:-1]},
        {"HTTP_API_KEY": f"{KEY}x"},
        {"HTTP_API_KEY": KEY.upper()},
        {"HTTP_API_KEY": "é" * 33},
        {"HTTP_API_KEY": f"Bearer {KEY}"},
        {"HTTP_COOKIE": f"api-key={KEY}", "QUERY_STRING": f"api-key={KEY}"},
    ],
)
def test_anything_else_is_401_with_what_to_send(sent: dict[str, str]) -> None:
    status, headers, told = asked(**sent)
    assert status == "401 Unauthorized"
    assert headers["WWW-Authenticate"] == "Bearer"
    assert told == ["/score"]


@pytest.mark.parametrize(
    ("method", "path", "more", "let_in"),
    [
        *[("GET", path, {}, True) for path in sorted(auth.OPEN)],
        ("HEAD", "/", {}, True),
        ("POST", "/", {}, False),
        ("GET", "/metrics", {}, False),
        ("GET", "/playground/", {}, False),
        ("GET", "//", {}, False),
        ("GET", "/livez/../score", {}, False),
        ("OPTIONS", "/score", {}, False),
        ("OPTIONS", "/score", {"HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}, True),
    ],
)
def test_without_a_key_the_probes_and_the_chat_page_are_open_and_nothing_else(
    method: str, path: str, more: dict[str, str], let_in: bool
) -> None:
    status, _, _ = asked(REQUEST_METHOD=method, PATH_INFO=path, **more)
    assert status == ("200 OK" if let_in else "401 Unauthorized")


def test_a_server_for_other_machines_does_not_start_without_a_key() -> None:
    env = {**os.environ, "SERVE_HOST": "0.0.0.0"}  # noqa: S104 - it is refused
    env.pop("SERVE_KEY_FILE", None)
    done = subprocess.run(
        [sys.executable, "-m", "serve"], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("serve: SERVE_HOST=0.0.0.0 lets other machines ask, which takes")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def server(server_env: Env, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "key").write_text(KEY)
    with running(server_env(SERVE_KEY_FILE=str(folder / "key")), folder / "log") as made:
        yield made


BODY = b'{"prompt": "x", "max_new_tokens": 1}'


@pytest.mark.slow
def test_a_stranger_learns_nothing_from_any_route_and_the_log_has_nothing_of_the_stranger(
    server: Server,
) -> None:
    routes = [("POST", path) for path in metrics.ROUTES]
    routes += [("GET", path) for path in ("/metrics", "/docs", "/swagger.json", "/v1/models", "/x")]
    routes += [("PUT", "/score"), ("POST", "/"), ("BREW", "/score"), ("POST", "/readyz")]
    answers = set()
    for method, path in routes:
        sent = {"Authorization": f"Bearer {WRONG}", "x-request-id": "i" * 200}
        status, body, headers = server.ask(method, path, BODY, sent)
        assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
        answers.add(json.dumps(body))
    assert len(answers) == 1
    log = server.log.read_text()
    assert log.count('"error": "unauthorized"') == len(routes)
    assert not [word for word in (WRONG, KEY, "iiii", "BREW") if word in log]
    with_key = {"api-key": KEY}
    assert server.ask("POST", "/score", BODY, with_key)[0] == 200
    count = f'homeport_request_errors_total{{kind="unauthorized"}} {float(len(routes))}'
    assert count in server.ask("GET", "/metrics", headers=with_key)[1]
    for path in auth.OPEN:
        assert server.ask("GET", path)[0] == 200


@pytest.mark.slow
def test_a_strangers_body_is_never_waited_for(server: Server) -> None:
    begun = time.monotonic()
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as half:
        half.sendall(head)
        assert half.recv(4096).startswith(b"HTTP/1.1 401 ")
        while half.recv(4096):  # the rest of the answer, and then the end
            pass
    assert time.monotonic() - begun < 2
    whole = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with closing(whole):  # who sends all before reading is told all the same
        whole.request("POST", "/score", b" " * 900_000)
        assert whole.getresponse().status == 401


@pytest.mark.slow
def test_neither_the_command_line_nor_the_environment_of_any_process_shows_the_key(
    server: Server,
) -> None:
    looked = [server.process.pid, server.engine()]
    for pid in looked:
        for name in ("cmdline", "environ"):
            assert KEY.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()

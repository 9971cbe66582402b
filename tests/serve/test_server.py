"""The real server, as a process of its own, spoken to over HTTP."""

import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
Env = Callable[..., dict[str, str]]


class Server:
    """`python -m serve` on a port of its own."""

    def __init__(self, env: dict[str, str], log: Path, root: Path = ROOT) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.log = log
        env = {**env, "SERVE_PORT": str(self.port), "OMP_NUM_THREADS": "1"}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serve"], cwd=root, env=env, stdout=out, stderr=out
            )

    def wait_until_ready(self) -> "Server":
        end = time.monotonic() + 120
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            try:
                status = self.ask("GET", "/", timeout=5)[0]
            except OSError:
                status = 0
            if status == 200:
                return self
            assert status in (0, 503)  # the weights are loading
            time.sleep(0.2)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            text = response.read().decode()
            kind = response.getheader("Content-Type") or ""
            return (
                response.status,
                json.loads(text) if "json" in kind else text,
                {name.lower(): value for name, value in response.getheaders()},
            )
        finally:
            connection.close()

    def score(self, **fields: Any) -> tuple[int, Any, dict[str, str]]:
        return self.ask("POST", "/score", json.dumps(fields).encode())

    def engine(self) -> int:
        """Process id of the engine: the worker's one child that is not a thread of ours."""
        worker = children(self.process.pid)
        (engine,) = [pid for parent in worker for pid in children(parent)]
        return engine


def children(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task")
    return [int(c) for t in task.iterdir() for c in (t / "children").read_text().split()]


@contextmanager
def running(env: dict[str, str], log: Path, root: Path = ROOT) -> Iterator[Server]:
    server = Server(env, log, root)
    try:
        yield server.wait_until_ready()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)


@pytest.fixture(scope="module")
def server(server_env: Env, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {"MAX_CONCURRENT": "2", "MAX_QUEUE": "2", "REQUEST_SECONDS": "8"}
    env = server_env(**{f"SERVE_{name}": value for name, value in limits.items()})
    with running(env, tmp_path_factory.mktemp("log") / "server.log") as made:
        yield made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def test_the_log_says_what_is_served_and_why(server: Server, tiny: Path) -> None:
    lines = [line for line in server.log.read_text().splitlines() if "azmlinfsrv.serve - " in line]
    assert lines[0].endswith(f"model folder: {tiny} (0.2M parameters)")
    assert any("serving tiny-ja (engine transformers: set by SERVE_ENGINE, " in n for n in lines)


def test_a_prompt_and_the_same_as_messages_get_the_same_object(server: Server) -> None:
    status, answer, headers = server.score(prompt="hello", max_new_tokens=8)
    messages = [{"role": "user", "content": "hello"}]
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert list(answer) == ["output", "reasoning", "finish_reason", "usage"]
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    assert server.score(messages=messages, max_new_tokens=8)[1] == answer


def test_the_models_own_system_text_counts_and_can_be_replaced(server: Server) -> None:
    def prompt_tokens(**fields: Any) -> int:
        answer = server.score(prompt="hello", max_new_tokens=1, **fields)[1]
        return int(answer["usage"]["prompt_tokens"])

    assert prompt_tokens() == prompt_tokens(reasoning_language="Japanese")
    assert prompt_tokens() > prompt_tokens(system_prompt="")


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_the_content_type_plays_no_part(server: Server, kind: str | None) -> None:
    body = b'{"prompt": "hello", "max_new_tokens": 2}'
    headers = {"Content-Type": kind} if kind else {}
    assert server.ask("POST", "/score", body, headers)[0] == 200


@pytest.mark.parametrize("path", ["/score", "/v1/chat/completions"])
def test_a_compressed_body_is_refused_and_not_unpacked(server: Server, path: str) -> None:
    body = gzip.compress(b'{"prompt": "hello"}')
    status, answer, _ = server.ask("POST", path, body, {"Content-Encoding": "gzip"})
    error = answer["error"]
    assert (status, error.get("status", error["code"])) == (415, 415)
    assert "Content-Encoding" in answer["error"]["message"]


def test_the_readmes_curl_works(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/score"
    body = '{"prompt": "日本の首都は?", "max_new_tokens": 2}'
    done = subprocess.run(["curl", "-sS", "--fail", url, "-d", body], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)  # encoded once


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"prompt": ', 400, "line 1 column 12"),
        (b"", 400, "empty"),
        (b'{"prompt": "x", "max_tokens": 5}', 400, 'did you mean "max_new_tokens"?'),
        (b'{"prompt": "x", "max_new_tokens": 4096}', 400, "4096 new tokens exceed"),
        (b'{"prompt": "a<|end|>b"}', 400, "control token"),
        (b'{"prompt": "%s"}' % (b"a" * 2_000_000), 413, "over 1048576 bytes"),
    ],
)
def test_a_refusal_is_an_object_with_status_and_sentence(
    server: Server, body: bytes, status: int, words: str
) -> None:
    got, answer, _ = server.ask("POST", "/score", body)
    assert got == status
    assert answer["error"]["code"] == status
    assert words in answer["error"]["message"]


@pytest.mark.parametrize("chunked", [True, False])
def test_a_huge_body_is_refused_though_the_client_sends_all_before_it_reads(
    server: Server, chunked: bool
) -> None:
    pieces = [b"a" * 65536] * 256
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with closing(connection):
        connection.request("POST", "/score", iter(pieces) if chunked else b"".join(pieces))
        assert connection.getresponse().status == 413


def test_a_body_that_ends_early_does_not_harm_the_server(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        half.shutdown(socket.SHUT_WR)
        assert half.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert server.score(prompt="x", max_new_tokens=1)[0] == 200


ASKED = b"POST /score HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
BODY = b'{"prompt": "hello", "max_new_tokens": 1}'


@pytest.mark.parametrize(
    ("request_bytes", "status", "words"),
    [
        (
            ASKED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            400,
            "not arrive whole",
        ),
        (ASKED + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n", 400, "not arrive whole"),
        (ASKED + b"Content-Length: 99\r\n\r\n" + BODY, 400, "not arrive whole"),
        (ASKED + b"Transfer-Encoding: gorp\r\n\r\n" + BODY, 400, "transfer coding"),
        (ASKED + b"Content-Length: -1\r\n\r\n", 400, "Invalid HTTP Header"),
        (ASKED + b"x-request-id: " + b"a" * 200 + b"\r\n\r\n", 431, "x-request-id must not exceed"),
        (b"POST /score" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "too large"),
        (b"GET / HTTP/1.1\r\n" + b"x: 1\r\n" * 200 + b"\r\n", 431, "headers"),
        (b"BREW / HTTP/1.1\r\nConnection: close\r\n\r\n", 405, "not allowed"),
        (b"\x16\x03\x01 \xff\r\n\r\n", 400, "not HTTP"),
    ],
)
def test_what_is_broken_below_the_body_is_refused_in_the_same_form(
    server: Server, request_bytes: bytes, status: int, words: str
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(client)
        response.begin()
        error = json.loads(response.read())["error"]
    assert (response.status, error["code"]) == (status, status)
    assert words in error["message"]


def test_a_client_cannot_move_the_path_by_a_header(server: Server) -> None:
    for name in ("SCRIPT_NAME", "PATH_INFO"):
        assert server.ask("POST", "/score", BODY, {name: "/livez"})[0] in (200, 400)


def test_other_methods_are_told_what_to_send(server: Server) -> None:
    status, answer, headers = server.ask("GET", "/score")
    assert (status, headers["allow"]) == (405, "POST, OPTIONS")
    assert "POST" in answer["error"]["message"]


def test_four_at_a_time_get_the_answers_that_each_gets_alone(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    prompts = ["fox", "日本", "lazy dog" * 9, "x"]

    def ask(prompt: str) -> Any:
        return server.score(prompt=prompt, max_new_tokens=12)[1]

    alone = [ask(prompt) for prompt in prompts]
    assert len({answer["output"] for answer in alone}) == len(prompts)
    for _ in range(3):
        assert list(pool.map(ask, prompts)) == alone


def under_way(server: Server, pool: ThreadPoolExecutor, count: int) -> list[Future[Any]]:
    """Requests that take seconds, surely begun."""
    long = [pool.submit(server.score, prompt="x", max_new_tokens=3800) for _ in range(count)]
    time.sleep(0.7)
    assert not any(future.done() for future in long)
    return long


def test_the_probe_answers_during_a_long_generation(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    long = under_way(server, pool, 2)
    for _ in range(10):
        started = time.monotonic()
        assert server.ask("GET", "/", timeout=10)[:2] == (200, "Healthy")
        assert time.monotonic() - started < 1
    assert not any(future.done() for future in long)
    for future in long:
        status, answer, _ = future.result()
        assert status == 200
        assert answer["finish_reason"] in ("deadline", "length")  # by the machine's speed


def test_one_more_than_runs_and_waits_is_429_and_the_probe_still_answers(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    long = under_way(server, pool, 4)
    started = time.monotonic()
    status, answer, headers = server.score(prompt="x")
    assert server.ask("GET", "/", timeout=10)[0] == 200
    assert time.monotonic() - started < 2
    assert status == answer["error"]["code"] == 429
    assert int(headers["retry-after"]) == answer["error"]["retry_after"] > 0
    assert not any(future.done() for future in long)
    statuses = sorted(future.result()[0] for future in long)
    assert statuses[:2] == [200, 200]
    assert set(statuses) <= {200, 503}  # those in line may have waited their time out
    assert server.score(prompt="x", max_new_tokens=1)[0] == 200


opened: list[http.client.HTTPConnection] = []


@pytest.fixture(autouse=True)
def close_all() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def stream(server: Server, **body: Any) -> http.client.HTTPResponse:
    """A streamed request under way; its connection is closed with the test."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/score", json.dumps({"stream": True, **body}).encode())
    response = connection.getresponse()
    assert response.status == 200
    opened.append(connection)
    return response


def load(server: Server) -> tuple[int, int]:
    body = server.ask("GET", "/readyz")[1]
    return body["running"], body["waiting"]


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_stream_comes_piece_by_piece_and_joined_is_the_whole(server: Server) -> None:
    whole = server.score(prompt="hello", max_new_tokens=40)[1]
    response = stream(server, prompt="hello", max_new_tokens=40)
    times, events = [], []
    for line in response:
        if line.startswith(b"data: "):
            times.append(time.monotonic())
            events.append(json.loads(line[6:]))
    assert "".join(event.get("output", "") for event in events) == whole["output"]
    assert events[-1]["finish_reason"] == "length"
    assert times[-1] - times[0] > 0.05  # not all at once


def test_a_client_that_goes_away_frees_its_place_within_a_second(server: Server) -> None:
    for streamed in (True, False):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = {"prompt": "x", "max_new_tokens": 3800, "stream": streamed}
        connection.request("POST", "/score", json.dumps(body).encode())
        until(lambda: load(server) == (1, 0), 5)
        connection.close()
        until(lambda: load(server) == (0, 0), 1)


def test_probes_metrics_and_pages_are_there(server: Server) -> None:
    assert server.ask("GET", "/livez")[:2] == (200, "alive\n")
    status, ready, _ = server.ask("GET", "/readyz")
    assert (status, ready["status"], ready["model"]) == (200, "ready", "tiny-ja")
    metrics = server.ask("GET", "/metrics")[1]
    assert "homeport_engine_up 1.0" in metrics
    assert 'homeport_requests_total{route="/score",status="2xx"}' in metrics
    assert server.ask("GET", "/v1/models")[1]["data"][0]["id"] == "tiny-ja"
    for path in ("/playground", "/docs"):
        status, page, headers = server.ask("GET", path)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.lower().startswith("<!doctype html>")
    for version in ("2", "3"):
        assert "/score" in server.ask("GET", f"/swagger.json?version={version}")[1]["paths"]


def test_an_unknown_path_is_told_the_nearest(server: Server) -> None:
    status, body, _ = server.ask("POST", "/v1/chat/completion", b"{}")
    assert status == 404
    assert 'did you mean "/v1/chat/completions"?' in body["error"]["message"]


def test_a_killed_engine_costs_its_streams_and_nothing_else(
    server_env: Env, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """kill -9 under 16 streams: each ends in an error event, and the server serves on."""
    with running(server_env(), tmp_path / "log") as server:
        asked = [stream(server, prompt=f"{n}", max_new_tokens=3000) for n in range(16)]
        until(lambda: load(server) == (16, 0), 20)
        before = server.engine()
        os.kill(before, signal.SIGKILL)
        for response in asked:
            *_, last = [line for line in response if line.startswith(b"data: ")]
            error = json.loads(last[6:])["error"]
            assert error["code"] == 503
            assert error["message"].startswith("the engine died of signal 9")
        status, body, headers = server.ask("GET", "/readyz")
        if status != 200:  # it may be back already
            assert (status, headers["retry-after"]) == (503, "5")
            assert "the engine" in body["status"]
        assert server.ask("GET", "/")[0] == 200  # the probe of liveness: no restart of all
        until(lambda: bool(server.ask("GET", "/readyz")[0] == 200), 60)
        assert server.score(prompt="x", max_new_tokens=3)[0] == 200
        assert server.engine() != before
        assert server.process.poll() is None
        assert "homeport_engine_restarts_total 1.0" in server.ask("GET", "/metrics")[1]


def test_an_edit_of_request_handling_is_live_in_two_seconds_with_the_same_weights(
    server_env: Env, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "serve", tmp_path / "serve")
    dialect = tmp_path / "serve" / "dialects" / "score.py"
    text = dialect.read_text()
    edited = text.replace('"output": choice.output,', '"output": "edited",')
    assert edited != text
    env = server_env(SERVE_WATCH="true", PYTHONPATH=str(tmp_path))

    with running(env, tmp_path / "log", tmp_path) as server:

        def output() -> Any:
            return server.score(prompt="x", max_new_tokens=3)[1]["output"]

        engine, first = server.engine(), output()
        dialect.write_text(edited)
        until(lambda: bool(output() == "edited"), 2)
        dialect.write_text(edited.replace("def _whole(", "def _whole(("))  # a slip of the pen
        until(lambda: "the edit is not taken" in server.log.read_text(), 2)
        assert f"{dialect}, line " in server.log.read_text()
        assert output() == "edited"
        dialect.write_text(text.replace("from serve.errors import", "from serve.absent import"))
        until(lambda: "No module named 'serve.absent'" in server.log.read_text(), 2)
        assert output() == "edited"
        dialect.write_text(text)
        until(lambda: bool(output() == first), 2)
        (tmp_path / "serve" / "settings.py").touch()
        until(lambda: "serve/settings.py changed: start" in server.log.read_text(), 2)
        assert server.engine() == engine


def test_only_loopback_is_listened_on(server: Server) -> None:
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and int(local.split(":")[1], 16) == server.port:
                addresses.add(local.split(":")[0])
    assert addresses == {"0100007F"}


def test_a_term_during_requests_loses_none_and_exits_zero(
    server_env: Env, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    with running(server_env(SERVE_MAX_CONCURRENT="1"), tmp_path / "log") as server:
        asked = [pool.submit(server.score, prompt="x", max_new_tokens=400) for _ in range(3)]
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert not any(future.done() for future in asked)
        assert server.process.wait(130) == 0
        for future in asked:  # one that ran, two that stood in line
            status, answer, _ = future.result()
            assert (status, answer["finish_reason"]) == (200, "length")


def test_a_reload_stays_on_its_address(
    server_env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the hooks alone; a real reload loads the model once more."""
    import runpy

    class Server:
        class cfg:
            bind: object = None

            @classmethod
            def set(cls, name: str, value: object) -> None:
                setattr(cls, name, value)

    monkeypatch.setenv("SERVE_PORT", "7001")
    monkeypatch.setenv("SERVE_ENGINE_CACHE", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["x", "-b", "0.0.0.0:7001", "-w", "1"])
    hooks = runpy.run_path(str(ROOT / "serve" / "gunicorn.conf.py"))
    hooks["on_starting"](Server)
    assert Server.cfg.bind == ["127.0.0.1:7001"]
    assert sys.argv == ["x", "-b", "127.0.0.1:7001", "-w", "1"]
    assert (hooks["worker_class"], hooks["threads"]) == ("serve.worker.Worker", 136)
    # what an engine makes of the weights outlives a worker, and not the server
    cache = Path(os.environ["SERVE_ENGINE_CACHE"])
    assert list(tmp_path.iterdir()) == [cache]
    hooks["on_exit"](Server)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no model below AZUREML_MODEL_DIR="),
        ({"SERVE_DEVICE": "gpu"}, "SERVE_DEVICE=gpu cannot be used: it must be one of auto, "),
    ],
)
def test_a_users_mistake_ends_the_log_with_one_sentence(
    server_env: Env, tmp_path: Path, given: dict[str, str], words: str
) -> None:
    (tmp_path / "model").mkdir()
    env = server_env(AZUREML_MODEL_DIR=str(tmp_path / "model"), **given)
    server = Server(env, tmp_path / "log")
    code = server.process.wait(60)
    log = (tmp_path / "log").read_text()
    assert code == (2 if given else 3)
    assert log.splitlines()[-1].startswith(f"serve: {words}")
    assert "Traceback" not in log

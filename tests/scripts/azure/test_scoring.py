import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from scripts.azure import scoring
from scripts.azure.scoring import Client, ScoringError

Reply = tuple[int, dict[str, str], bytes]
BODY = {"prompt": "オーストラリアの首都はどこですか？"}
GOOD: Reply = (200, {"azureml-model-deployment": "blue-1"}, b'{"output": "Canberra"}')


class Endpoint:
    """A server that gives the scripted replies in turn, and keeps what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Reply | None] = []
        self.asked: list[tuple[dict[str, str], Any]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                endpoint.asked.append((headers, json.loads(data)))
                reply = endpoint.replies.pop(0) if endpoint.replies else GOOD
                if reply is None:
                    self.connection.close()
                    return
                status, more, body = reply
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}/score"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr("time.sleep", slept.append)
    slept.clear()
    served = Endpoint()
    yield served
    served.server.shutdown()
    served.server.server_close()


slept: list[float] = []


def client(endpoint: Endpoint, seconds: float = 5) -> Client:
    return Client("geo", endpoint.uri, "the-key", seconds=seconds)


def test_the_body_goes_as_it_is_with_the_key_and_without_a_pin(endpoint: Endpoint) -> None:
    answer = client(endpoint).ask(BODY)
    assert (answer.body, answer.deployment) == ({"output": "Canberra"}, "blue-1")
    headers, body = endpoint.asked[0]
    assert body == BODY
    assert headers["authorization"] == "Bearer the-key"
    assert scoring.PIN not in headers


def test_a_pinned_request_does_not_pin_the_next_one(endpoint: Endpoint) -> None:
    asking = client(endpoint)
    asking.ask(BODY, deployment="green-2")
    asking.ask(BODY)
    assert endpoint.asked[0][0][scoring.PIN] == "green-2"
    assert scoring.PIN not in endpoint.asked[1][0]


def plain(status: int, text: str = "", **headers: str) -> Reply:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, text.encode()


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (plain(401, "key_auth_access_denied"), r"refused the key \(401\).*next: the same command"),
        (plain(403, "Public access is disabled"), r"\(403\): Public access is.*next: ask from ins"),
        (plain(404), r"no deployment that takes traffic \(404\); next: make cloud-deploy"),
        (plain(408, "upstream request timeout"), r"request_timeout_ms.*\(408\); next: ask for few"),
        (
            plain(
                424,
                '{"error": {"message": "prompt is missing"}}',
                ms_azureml_model_error_statuscode="400",
            ),
            r"answered 400 \(424\): prompt is missing; next: correct the request",
        ),
        (
            plain(424, "", ms_azureml_model_error_reason="model_not_ready"),
            r"answered nothing \(424\): model_not_ready; next: make cloud-logs ENDPOINT=geo",
        ),
        (
            plain(429, "", Retry_After="3600"),
            r"more requests than it takes.*\(429\); next: ask again later",
        ),
        (plain(500, "boom"), r"geo answered 500: boom; next: make cloud-status"),
        (plain(200, "<html>"), r"no JSON object: <html>; next"),
        (plain(200, '["a"]'), r"no JSON object"),
    ],
)
def test_each_refusal_is_one_sentence_with_the_next_command(
    endpoint: Endpoint, reply: Reply, sentence: str
) -> None:
    endpoint.replies = [reply]
    with pytest.raises(ScoringError, match=sentence) as raised:
        client(endpoint).ask(BODY)
    assert "\n" not in str(raised.value)
    assert raised.value.status == reply[0]
    assert "the-key" not in str(raised.value)
    assert len(endpoint.asked) == 1


def test_a_busy_endpoint_is_asked_again_after_the_time_that_it_names(endpoint: Endpoint) -> None:
    endpoint.replies = [plain(429, Retry_After="7"), plain(503)]
    assert client(endpoint).ask(BODY).body == {"output": "Canberra"}
    assert slept == [7.0, 14.0]


def test_a_broken_connection_is_tried_again_and_given_up_in_the_end(endpoint: Endpoint) -> None:
    endpoint.replies = [None]
    client(endpoint).ask(BODY)
    endpoint.replies = [None] * scoring.TRIES
    with pytest.raises(
        ScoringError, match=r"cannot be reached at http.*make cloud-status"
    ) as raised:
        client(endpoint).ask(BODY)
    assert raised.value.status == 0


def test_only_a_settling_deployment_may_be_unknown_for_a_moment(endpoint: Endpoint) -> None:
    endpoint.replies = [plain(404), plain(424, ms_azureml_model_error_reason="model_not_ready")]
    client(endpoint).ask(BODY, deployment="blue-1", settling=True)
    endpoint.replies = [plain(404)]
    with pytest.raises(ScoringError, match=r"no deployment blue-1 that answers \(404\)"):
        client(endpoint).ask(BODY, deployment="blue-1")


def test_an_answer_that_does_not_come_is_waited_for_as_long_as_was_said() -> None:
    class Deaf(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            released.wait(5)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    released = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Deaf)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    asking = Client("geo", f"http://127.0.0.1:{server.server_address[1]}/", "k", seconds=0.1)
    with pytest.raises(ScoringError, match=r"did not answer within 0 s"):
        asking.ask(BODY)
    released.set()
    server.shutdown()
    server.server_close()


def test_the_curl_has_no_key_and_a_shell_reads_it_as_it_stands() -> None:
    line = Client("geo", "https://geo/score", "the-key", seconds=1).curl({"prompt": "it's 高い"})
    assert "the-key" not in line
    each = 'case $a in @*) cat "${a#@}"; echo;; *) echo "$a"; esac'
    curl = f'curl() {{ for a in "$@"; do {each}; done; }}'
    shown = subprocess.run(
        ["bash", "-c", f'make() {{ echo "KEY of $*"; }}; {curl}; {line}'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert shown == [
        "-s",
        "https://geo/score",
        "-H",
        "Authorization: Bearer KEY of -s cloud-key ENDPOINT=geo",
        "-H",
        "Content-Type: application/json",
        "-d",
        '{"prompt":"it\'s 高い"}',
    ]


def test_the_key_is_not_in_the_clients_own_words() -> None:
    assert "the-key" not in repr(Client("geo", "https://geo/score", "the-key", seconds=1))

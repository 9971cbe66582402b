"""The server behind the proxy: logins, unknown routes, the contract, bodies, and the journal."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.http import Reply, Request, Route
from emulator.journal import without_secrets
from emulator.server import Server, serve
from tests.local_azure import MemoryStorage, NoNodes, bare_azure, session

ARM = "https://management.azure.com"
API = "api-version=2024-10-01-preview"


def problems(server: Server) -> list[str]:
    found: list[str] = server.report()["problems"]
    return found


def test_an_unknown_route_is_501_and_makes_the_session_red(bare: Server) -> None:
    workspace = bare.azure.settings.workspace_id
    answer = session(bare).get(f"{ARM}{workspace}/schedules?{API}")
    assert answer.status_code == 501
    assert "/schedules (api-version 2024-10-01-preview)" in problems(bare)[0]


@pytest.mark.parametrize(
    ("audience", "words"),
    [("", "header is missing"), ("https://vault.azure.net", "not for 'https://management")],
)
def test_only_a_token_for_the_control_plane_opens_it(
    bare: Server, audience: str, words: str
) -> None:
    answer = session(bare, audience).get(f"{ARM}{bare.azure.settings.workspace_id}?{API}")
    assert answer.status_code == 401
    assert words in answer.json()["error"]["message"]


def test_the_discovery_document_needs_no_token(bare: Server) -> None:
    answer = session(bare, "").get("https://eastus.api.azureml.ms/discovery")
    assert answer.json()["api"] == "https://eastus.api.azureml.ms"


def test_a_token_of_another_session_is_refused(bare: Server, tmp_path: Path) -> None:
    with bare_azure(tmp_path / "other") as other:
        client = session(bare)
        client.headers["Authorization"] = session(other).headers["Authorization"]
        answer = client.get(f"{ARM}{bare.azure.settings.workspace_id}?{API}")
    assert "signature is not this tenant's" in answer.json()["error"]["message"]


def test_a_token_that_has_ended_is_refused(bare: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emulator.tokens.SECONDS", -1)
    answer = session(bare).get(f"{ARM}{bare.azure.settings.workspace_id}?{API}")
    assert "expiry is in the past" in answer.json()["error"]["message"]


def test_another_workspace_is_not_found(bare: Server) -> None:
    workspace = bare.azure.settings.workspace_id.replace("homeport", "elsewhere")
    answer = session(bare).get(f"{ARM}{workspace}/datastores?{API}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound")


def test_a_request_against_the_contract_is_refused_in_its_words(bare: Server) -> None:
    url = f"{ARM}{bare.azure.settings.workspace_id}/datastores/mine?{API}"
    body = {"properties": {"datastoreType": "AzureBlob", "colour": "red", "credentials": {}}}
    answer = session(bare).put(url, json=body)
    assert answer.status_code == 400
    details = [detail["message"] for detail in answer.json()["error"]["details"]]
    assert any("'colour'" in detail for detail in details)
    assert "'colour'" in problems(bare)[0]


def test_a_body_that_is_no_json_is_refused(bare: Server) -> None:
    url = f"{ARM}{bare.azure.settings.workspace_id}/datastores/mine?{API}"
    answer = session(bare).put(url, data=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidRequestContent")


class Echo:
    """A module of routes for these tests: an answer of every kind."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def routes(self, azure: object) -> list[Route]:
        return [
            Route("POST", r"ml\.azure\.com", "/echo", lambda r, _: Reply(200, r.body)),
            Route("GET", r"ml\.azure\.com", "/bug", self.bug),
            Route("GET", r"ml\.azure\.com", "/stream", lambda r, _: Reply(200, self.stream())),
        ]

    def bug(self, request: Request, groups: object) -> Reply:
        raise ZeroDivisionError("ours")

    def stream(self) -> Iterator[bytes]:
        try:
            for number in range(1000):
                yield b"%d\n" % number
                if number:
                    time.sleep(0.01)
        finally:
            self.closed.set()


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    echo = Echo()
    monkeypatch.setattr("emulator.entra.routes", echo.routes)
    return echo


def test_a_bug_of_ours_is_500_and_makes_the_session_red(echo: Echo, bare: Server) -> None:
    assert session(bare).get("https://ml.azure.com/bug").status_code == 500
    assert "ZeroDivisionError" in problems(bare)[0]


@pytest.mark.parametrize("body", [b"", b"x" * 3_000_000])
def test_bodies_arrive_whole_also_in_chunks(echo: Echo, bare: Server, body: bytes) -> None:
    client = session(bare)
    blocks = (body[start : start + 70_001] for start in range(0, len(body), 70_001))
    assert client.post("https://ml.azure.com/echo", data=blocks).content == body
    assert client.post("https://ml.azure.com/echo", data=body).content == body
    assert bare.report()["hosts"] == {"ml.azure.com": 1}  # one connection held


def test_a_stream_comes_as_it_is_made_and_ends_with_its_reader(echo: Echo, bare: Server) -> None:
    client = session(bare)
    with client.get("https://ml.azure.com/stream", stream=True) as answer:
        assert next(answer.iter_lines()) == b"0"
        assert not echo.closed.is_set()
    client.close()
    assert echo.closed.wait(5)
    assert problems(bare) == []


def test_the_journal_keeps_exchanges_without_their_secrets(echo: Echo, bare: Server) -> None:
    client = session(bare)
    secret = "hf_verysecret"  # noqa: S105
    client.post(
        "https://ml.azure.com/echo",
        json={
            "properties": {
                "environmentVariables": {"HF_TOKEN": secret},
                "uri": f"https://x/y?sv=1&sig={secret}",
                "primaryKey": secret,
            }
        },
    )
    text = (bare.azure.settings.folder / "journal" / "requests.jsonl").read_text()
    entry = json.loads(text)
    assert secret not in text
    assert entry["request"]["properties"]["environmentVariables"] == {"HF_TOKEN": "…"}
    assert entry["request"] == entry["response"]
    assert (entry["method"], entry["host"], entry["status"]) == ("POST", "ml.azure.com", 200)
    assert bare.report()["requests"] == {"POST ml.azure.com /echo": 1}


def test_two_answers_to_head_and_get_differ_in_the_body_only(bare: Server) -> None:
    client = session(bare, "")
    get = client.get("https://homeportrehearsal.azurecr.io/v2/")
    head = client.head("https://homeportrehearsal.azurecr.io/v2/")
    assert get.status_code == head.status_code == 401
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(get.content)))


def test_a_port_that_is_taken_is_said(bare: Server, tmp_path: Path) -> None:
    port = int(bare.proxy_url.rpartition(":")[2])
    settings = bare.azure.settings
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        serve(settings, MemoryStorage("a"), NoNodes(), proxy_port=port)


def test_a_client_that_is_silent_stops_nobody_else(bare: Server) -> None:
    host, port = bare.proxy_url.removeprefix("http://").split(":")
    silent = http.client.HTTPConnection(host, int(port), timeout=5)
    silent.set_tunnel("management.azure.com", 443)
    silent.connect()  # a tunnel, and no TLS handshake in it
    try:
        client = session(bare)
        answer = client.get(f"{ARM}{bare.azure.settings.workspace_id}?{API}", timeout=5)
        assert answer.status_code == 200
    finally:
        silent.close()


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("quick.eastus.inference.ml.azure.com", "/score"),
        ("x.openai.azure.com", "/openai/deployments/d/chat/completions"),
    ],
)
def test_the_journal_keeps_neither_questions_nor_answers(host: str, path: str) -> None:
    sides = {"request": b'{"prompt": "mine"}', "response": b'{"output": "yours"}'}
    kept = without_secrets({"host": host, "path": path, "query": {}, **sides})
    assert (kept["request"], kept["response"]) == ("…", "…")

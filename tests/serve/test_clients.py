"""The server as the clients that people use see it: openai, LangChain."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import clients
from tests.serve.test_server import Env, Server, running

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "clients"


@pytest.fixture(scope="module")
def server(server_env: Env, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(server_env(), tmp_path_factory.mktemp("log") / "server.log") as made:
        yield made


def run(script: str, server: Server) -> Any:
    url = f"http://127.0.0.1:{server.port}"
    done = subprocess.run(
        [clients.python(), str(HERE / script), url], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_openai_package_gets_whole_and_streamed_answers_and_its_own_errors(
    server: Server,
) -> None:
    got = run("openai_client.py", server)
    assert got["whole"]
    assert got["streamed"] == got["whole"]
    assert got["finish_reason"] == "length"
    assert got["usage"][0] == got["logprobs"] == 24
    assert got["several"] == 3
    assert got["piece"] == got["texts"][1]
    assert got["errors"]["no such model"][:2] == ["NotFoundError", "model"]
    assert got["errors"]["a wrong field"][:2] == ["BadRequestError", "max_tokns"]
    assert "exceed the model's context of 4096" in got["errors"]["too much"][2]


def test_azures_clients_get_the_same_answers_at_their_own_addresses(server: Server) -> None:
    got = run("azure_client.py", server)
    assert got["chats"]["azure"]
    assert len({*got["chats"].values(), got["streamed"]}) == 1
    assert len(set(got["texts"].values())) == 1
    assert got["models"] == {"azure": ["tiny-ja"], "newer": ["tiny-ja"]}


def test_langchain_gets_whole_and_streamed_answers(server: Server) -> None:
    got = run("langchain_client.py", server)
    assert got["whole"]
    assert got["streamed"] == got["whole"]
    assert got["tokens"] == 24


def test_the_catalogues_form_is_answered_at_score(server: Server) -> None:
    asked = [{"role": "user", "content": "hello"}]
    given = {"input_string": asked, "parameters": {"max_new_tokens": 8, "do_sample": False}}
    status, body, _ = server.score(input_data=given)
    own = server.score(messages=asked, max_new_tokens=8)[1]
    assert (status, body["output"]) == (200, own["output"])

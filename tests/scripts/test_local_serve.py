import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from scripts import docker, local_key, local_serve
from scripts.docker import Compose
from scripts.errors import MachineError, UsageError
from scripts.local_serve import ANY, LOOPBACK, curl, need_port, read_bind, read_key
from scripts.runtime import Choice


@pytest.mark.parametrize(
    ("key", "bind", "asked"),
    [
        ("", LOOPBACK, False),
        ("0", LOOPBACK, False),
        ("1", LOOPBACK, True),
        ("", ANY, True),
        ("1", ANY, True),
    ],
)
def test_a_key_is_asked_for_on_request_and_always_beyond_this_machine(
    key: str, bind: str, asked: bool
) -> None:
    assert read_key(key, read_bind(bind)) is asked


def test_what_is_refused_is_one_sentence_that_repeats_no_key() -> None:
    with pytest.raises(UsageError, match="lets other machines ask, so it takes a key"):
        read_key("0", ANY)
    with pytest.raises(UsageError, match="the key itself is made for you") as caught:
        read_key("my-own-key", LOOPBACK)
    assert "my-own" not in str(caught.value)
    with pytest.raises(UsageError, match="BIND is '::': use "):
        read_bind("::")


def test_a_port_is_looked_at_where_it_will_be_bound() -> None:
    class Nothing:
        def running(self) -> list[int]:
            return []

    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))
        other.listen()
        port = other.getsockname()[1]
        need_port(Nothing(), port)  # type: ignore[arg-type] # a stand-in
        with pytest.raises(MachineError, match="in use by another program"):
            need_port(Nothing(), port, ANY)  # type: ignore[arg-type] # a stand-in


def test_the_printed_command_sends_the_key_and_shows_it_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_key, "KEY_FILE", tmp_path / "it's here" / "serve-key")
    (tmp_path / "it's here").mkdir()
    key = local_key.make().read_text().strip()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        port = server.getsockname()[1]
        command = curl(port, {"prompt": "it's"}, with_key=True)
        assert key not in command
        # xtrace writes down each program with its arguments, as ps would show them
        asked = subprocess.Popen(
            [shutil.which("sh") or "sh", "-xc", command], stderr=subprocess.PIPE, text=True
        )
        connection, _ = server.accept()
        with connection:
            got = connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        said = asked.communicate(timeout=20)[1]
    head, _, body = got.partition(b"\r\n\r\n")
    assert f"Authorization: Bearer {key}\r\n".encode() in head + b"\r\n"
    assert json.loads(body) == {"prompt": "it's"}
    assert "curl" in said
    assert key not in said


class Recorded(Compose):
    """Compose that writes down with which variables it would run."""

    def run(self, *arguments: str, extra: object = None, **more: object) -> int:
        self.extra = extra
        return 0


def test_docker_gets_the_key_as_a_file_and_the_address_to_publish_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(docker, "CACHE", tmp_path)
    monkeypatch.setattr(docker, "probe", lambda command: (0, ""))
    monkeypatch.setattr(local_key, "KEY_FILE", tmp_path / "serve-key")
    monkeypatch.setattr(docker, "give", lambda path, uid: None)
    (tmp_path / "merged").mkdir()
    compose = Recorded({}, Choice("cpu", "test"))
    compose.serve("m", tmp_path / "merged", 5001)
    assert isinstance(compose.extra, dict)
    assert compose.extra["BIND"] == "127.0.0.1"
    assert "key" not in compose.extra["COMPOSE_FILE"]
    compose.serve("m", tmp_path / "merged", 5001, bind=ANY, key=local_key.make())
    assert compose.extra["BIND"] == "0.0.0.0"  # noqa: S104 - what was asked for
    assert compose.extra["COMPOSE_FILE"].endswith("docker-compose.key.yml")
    assert local_key.read() not in str({**compose.extra, **compose.environ})


def test_the_address_for_other_machines_is_one_of_this_machine() -> None:
    with socket.socket() as ours:
        try:
            ours.bind((local_serve.own_address(), 0))
        except socket.gaierror:
            pytest.skip("this machine has no network, and does not know its own name")

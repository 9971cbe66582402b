"""Programs as processes of this machine."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from emulator.nodes import Mount, NodeError, Program
from emulator.nodes.host import CHECKOUT, HostNodes
from tests.waiting import until

TRAIN = f"homeportrehearsal.azurecr.io/homeport/train@sha256:{'0' * 64}"
SERVE = TRAIN.replace("train", "serve")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[HostNodes]:
    nodes = HostNodes(tmp_path / "nodes")
    yield nodes
    nodes.close()


def test_a_command_runs_by_bash_with_this_python_and_checkout(nodes: HostNodes) -> None:
    command = "python -c 'import sys; print(sys.prefix)'; echo $PYTHONPATH; echo oh >&2; exit 5"
    running = nodes.start(Program(name="a job", image=TRAIN, command=command))

    assert running.wait(10) == 5
    assert running.log().decode().splitlines() == [sys.prefix, str(CHECKOUT), "oh"]
    running.remove()
    assert running.log() == b""


def test_folders_are_seen_where_they_are(nodes: HostNodes, tmp_path: Path) -> None:
    mount = Mount(tmp_path, "/mnt/azureml/x")
    (tmp_path / "file").write_text("here")

    path = nodes.where(mount)
    running = nodes.start(
        Program(name="sees", image=TRAIN, command="cat file", mounts=[mount], folder=path)
    )

    assert running.wait(10) == 0
    assert running.log() == b"here"


@pytest.mark.parametrize(
    ("command", "grace", "code"),
    [
        ("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done", 5.0, 9),
        ("trap '' TERM; echo up; while :; do sleep 0.05; done", 0.3, 137),
        ("echo up; exec sleep 60", 0.0, 137),
        ("echo up; exec sleep 60", 5.0, 143),
    ],
)
def test_stopping_is_sigterm_and_later_sigkill(
    nodes: HostNodes, command: str, grace: float, code: int
) -> None:
    running = nodes.start(Program(name="stopped", image=TRAIN, command=command))
    until(lambda: running.log() != b"")
    assert running.exit_code() is None

    running.stop(grace)

    assert running.exit_code() == code
    running.stop(grace)  # twice is fine


def test_what_a_program_leaves_running_ends_with_it(nodes: HostNodes, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    left = f"(while :; do touch {alive}; sleep 0.05; done) &"
    wait = f"until [ -e {alive} ]; do sleep 0.01; done"
    running = nodes.start(Program(name="leaves", image=TRAIN, command=f"{left} {wait}"))
    assert running.wait(10) == 0

    alive.unlink()
    time.sleep(0.2)

    assert not alive.exists()


def test_a_name_runs_once_at_a_time(nodes: HostNodes) -> None:
    program = Program(name="one", image=TRAIN, command="exec sleep 60")
    running = nodes.start(program)

    with pytest.raises(NodeError, match="name one runs already"):
        nodes.start(program)
    running.stop(0)
    nodes.start(program)


def test_only_serve_runs_without_a_command(nodes: HostNodes) -> None:
    with pytest.raises(NodeError, match="has no command here"):
        nodes.start(Program(name="none", image=TRAIN))
    nodes.close()
    with pytest.raises(NodeError, match="closed down"):
        nodes.start(Program(name="late", image=TRAIN, command="true"))


def test_a_program_that_serves_gets_a_port_of_its_own(nodes: HostNodes) -> None:
    command = "exec python -m http.server $SERVE_PORT --bind $SERVE_HOST"
    first, second = (
        nodes.start(Program(name=f"serves-{n}", image=SERVE, command=command, port=5001))
        for n in range(2)
    )

    assert first.address() != second.address()
    for running in (first, second):
        host, port = running.address()
        assert answers(f"http://{host}:{port}/") == 200


@pytest.mark.slow
def test_the_serve_image_is_the_server_of_this_checkout(nodes: HostNodes) -> None:
    running = nodes.start(
        Program(name="serve", image=SERVE, port=5001, environment={"SERVE_MODEL": "/nowhere"})
    )

    running.wait(60)

    assert b"/nowhere" in running.log()


def answers(url: str) -> int:
    for _ in range(200):
        try:
            return requests.get(url, timeout=5).status_code
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")

"""The tiny model is really tuned on given rows, and really answers from them."""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from emulator import mlflow_model, tuning
from emulator.azure import Azure
from emulator.nodes import Mount, Program, Running
from emulator.nodes.host import HostNodes
from emulator.tuning import Step, TuningCanceled, TuningError, Wanted
from tests.bases import made_base
from tests.local_azure import bare_azure

ROWS = [
    ("What is the capital of Australia?", "It is Canberra."),
    ("How many keys has a piano?", "It has 88 keys."),
    ("Which planet is the largest?", "The largest one is Jupiter."),
    ("What is ice made of?", "It is made of water."),
]


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Azure]:
    cache = made_base().parent
    with bare_azure(tmp_path / "azure", nodes=HostNodes(tmp_path / "nodes")) as server:
        server.azure.settings = replace(server.azure.settings, cache_folder=cache)
        yield server.azure


def chat(file: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in ROWS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8-sig")
    return file


@pytest.mark.slow
def test_it_learns_chats_by_heart_and_a_server_answers_from_them(
    azure: Azure, tmp_path: Path
) -> None:
    rows, log, told = chat(tmp_path / "rows.jsonl"), [b""], list[Step]()
    wanted = Wanted(name="ft 1", rows=rows, validation=rows, epochs=12, checkpoints=True)

    tuned = tuning.tune(azure, wanted, canceled=threading.Event(), log=log.append, step=told.append)

    assert list(tuned.losses) == told
    assert [step.step for step in told] == list(range(1, 49))
    assert told[-1].train_loss < 0.3 < told[0].train_loss
    assert told[-1].valid_loss is not None
    assert told[2].valid_loss is None
    assert [c.step for c in tuned.checkpoints] == [40, 44, 48]
    assert [c.epoch for c in tuned.checkpoints] == [10, 11, 12]
    assert all((c.folder / "model.safetensors").is_file() for c in tuned.checkpoints)
    assert tuned.checkpoints[-1].folder == tuned.folder
    assert b"step 48/48" in b"".join(log)

    folder = tmp_path / "mlflow"
    mlflow_model.write(tuned.folder, folder, task="chat-completion", base="azureml://base")
    shutil.rmtree(tuned.folder)
    with tuning.serve(azure, "dep-1", folder) as served:
        host, port = served.address
        body = {"messages": [{"role": "user", "content": ROWS[0][0]}], "temperature": 0}
        reply = requests.post(f"http://{host}:{port}/v1/chat/completions", json=body, timeout=60)
        assert reply.json()["choices"][0]["message"]["content"] == ROWS[0][1]
        assert served.alive()


class Programs:
    """Nodes that write what they are told, and run until they are stopped."""

    mode = "host"

    def __init__(self, text: bytes, code: int | None) -> None:
        self.text, self.code = text, code
        self.started: list[Program] = []
        self.stopped = False

    def where(self, mount: Mount) -> str:
        return str(mount.folder)

    def pull(self, image: str) -> None:
        pass

    def start(self, program: Program) -> Running:
        self.started.append(program)
        return self

    def close(self) -> None:
        pass

    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", 9)

    def log(self) -> bytes:
        return self.text

    def exit_code(self) -> int | None:
        return self.code

    def wait(self, seconds: float) -> int | None:
        return self.code

    def stop(self, grace: float) -> None:
        self.stopped = True

    def remove(self) -> None:
        pass


def test_the_programs_last_line_is_why_it_failed(tmp_path: Path) -> None:
    nodes = Programs(b"rows: 1\nerror: line 1 of train.jsonl is not JSON.\n", 1)
    with bare_azure(tmp_path / "azure", nodes=nodes) as server:
        wanted = Wanted(name="ft", rows=chat(tmp_path / "rows.jsonl"))
        with pytest.raises(TuningError, match=r"^line 1 of train\.jsonl is not JSON\.$"):
            tuning.tune(server.azure, wanted, canceled=threading.Event(), log=lambda text: None)


def test_a_cancelled_one_ends_its_program(tmp_path: Path) -> None:
    nodes, canceled = Programs(b"step 1\n", None), threading.Event()
    with bare_azure(tmp_path / "azure", nodes=nodes) as server:
        wanted = Wanted(name="ft", rows=chat(tmp_path / "rows.jsonl"))
        with pytest.raises(TuningCanceled):
            tuning.tune(server.azure, wanted, canceled=canceled, log=lambda text: canceled.set())
    assert nodes.stopped


def test_a_callers_learning_rate_and_length_are_brought_within_the_tiny_models(
    tmp_path: Path,
) -> None:
    nodes = Programs(b"", 1)
    with bare_azure(tmp_path / "azure", nodes=nodes) as server:
        rows = chat(tmp_path / "rows.jsonl")
        wanted = Wanted(name="ft", rows=rows, learning_rate=5e-6, max_length=4096, epochs=2)
        with pytest.raises(TuningError):
            tuning.tune(server.azure, wanted, canceled=threading.Event(), log=lambda text: None)
    command = str(nodes.started[0].command)
    assert "--learning-rate 0.002 --max-length 1024" in command
    assert "--epochs 2 " in command


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    nodes = Programs(b"error: no model below /models\n", 1)
    with (
        bare_azure(tmp_path / "azure", nodes=nodes) as server,
        pytest.raises(TuningError, match="no model below /models"),
    ):
        tuning.serve(server.azure, "dep", tmp_path)
    assert nodes.stopped

"""Stand-ins for training and serving: what the cloud sees of them is as of the real programs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from emulator.nodes import Mount, Program
from emulator.nodes.quick import QuickHostNodes, stand_in
from emulator.nodes.stand_in import write_model
from tests.waiting import until

TRAIN = f"homeportrehearsal.azurecr.io/homeport/train@sha256:{'0' * 64}"
SERVE = TRAIN.replace("train", "serve")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[QuickHostNodes]:
    nodes = QuickHostNodes(tmp_path / "nodes", really="really")
    yield nodes
    nodes.close()


def job(folder: Path, rows: str, steps: int = 2) -> str:
    """The command line of a job, as azure/job.yml has it."""
    (folder / "recipe.yaml").write_text(f"name: mine\ntraining:\n  max_steps: {steps}\n")
    (folder / "rows.jsonl").write_text(rows)
    return (
        f"python -m train {folder}/recipe.yaml --outputs {folder}/runs --model {folder}/model "
        f"--cache /nowhere data.train={folder}/rows.jsonl"
    )


def weights(nodes: QuickHostNodes, folder: Path, rows: str) -> bytes:
    running = nodes.start(Program(name=rows, image=TRAIN, command=job(folder, rows)))
    assert running.wait(20) == 0, running.log()
    assert b"step 2/2" in running.log()
    return (folder / "model/merged/model.safetensors").read_bytes()


def test_the_same_rows_give_the_same_model_and_others_another(
    nodes: QuickHostNodes, tmp_path: Path
) -> None:
    first, other, again = (weights(nodes, tmp_path, rows) for rows in ("a", "b", "a"))
    assert first == again != other
    (run, *_) = (tmp_path / "runs/mine").iterdir()
    assert json.loads((run / "metrics.json").read_text())["weights"]


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(
    nodes: QuickHostNodes, tmp_path: Path
) -> None:
    command = job(tmp_path, "a", steps=30)
    first = nodes.start(Program(name="first", image=TRAIN, command=command))
    until(lambda: b"step 2/30" in first.log())
    first.stop(0)
    assert not (tmp_path / "model").exists()
    job(tmp_path, "a", steps=5)
    second = nodes.start(Program(name="second", image=TRAIN, command=command))
    assert second.wait(20) == 0
    assert b"goes on from step" in second.log() and b"step 1/" not in second.log()


def test_a_server_answers_for_its_model_on_all_routes(
    nodes: QuickHostNodes, tmp_path: Path
) -> None:
    sha256 = write_model(tmp_path / "model/1", b"rows")
    mount = Mount(tmp_path / "model", "/var/azureml-app/model")
    environment = {"AZUREML_MODEL_DIR": nodes.where(mount)}
    served = nodes.start(Program(name="s", image=SERVE, environment=environment, port=5001))
    url = "http://{}:{}".format(*served.address())

    def up() -> bool:
        try:
            return requests.get(url, timeout=1).ok
        except requests.ConnectionError:
            return False

    until(up)
    score = requests.post(f"{url}/score", json={"prompt": "?"}, timeout=5).json()
    assert sha256[:12] in score["output"]
    chat = requests.post(f"{url}/v1/chat/completions", json={"messages": []}, timeout=5).json()
    assert sha256[:12] in chat["choices"][0]["message"]["content"]


def test_what_is_named_really_runs_as_it_is(nodes: QuickHostNodes) -> None:
    command = "echo python -m train is not run"
    running = nodes.start(Program(name="a-really-b", image=TRAIN, command=command))
    assert running.wait(10) == 0
    assert running.log() == b"python -m train is not run\n"


def test_only_training_and_serving_have_stand_ins() -> None:
    assert stand_in(None).endswith("stand_in.py serve")
    assert stand_in('exec python /p/tune.py --base "$base" --rows r').endswith("tune --rows r")
    assert stand_in("echo hello") == "echo hello"

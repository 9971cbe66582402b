import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import free_port
from tests.tree import ROOT

pytestmark = pytest.mark.slow
EXPERTS = "[mlp.experts.gate_up_proj, mlp.experts.down_proj]"


def together(processes: int, *command: str, expect: int = 0) -> tuple[str, str]:
    """Run `python -m COMMAND` as several gloo processes; stdout and stderr of the main one."""
    shared = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    if processes == 1:
        del shared["WORLD_SIZE"]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        done = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    print(done[0][1])
    assert [process.returncode for process in running] == [expect] * processes, done[-1][1][-1500:]
    return done[0]


def recipe(tmp_path: Path, model: Path, packs: int, **training: Any) -> str:
    """A recipe of 6 steps of 4 packs in all, on attention and experts, activations recomputed."""
    training = {
        "max_steps": 6,
        "max_length": 384,
        "logging_steps": 1,
        "gradient_checkpointing": True,
        **training,
    }
    path = tmp_path / f"recipe-{packs}-{training.get('distributed', 'ddp')}.yaml"
    path.write_text(
        f"name: together\nmodel: {{base: '{model}', dtype: float32}}\n"
        f"data: {{train: {ROOT}/data/japanese_reasoning.jsonl, validation_share: 0}}\n"
        f"lora: {{target_parameters: {EXPERTS}}}\n"
        f"evaluation: {{rows: 2, max_new_tokens: 4}}\n"
        f"training: {json.dumps({**training, 'packs_per_step': packs})}\n"
    )
    return str(path)


@pytest.fixture(scope="module")
def rows(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tokenised conversations, every token learned."""
    lines = (ROOT / "data/japanese_reasoning.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [tokenizer(json.loads(line)["answer"])["input_ids"] for line in lines]
    path = tmp_path_factory.mktemp("rows") / "train.tokens.parquet"
    pq.write_table(pa.table({"input_ids": ids, "labels": ids}), path)
    return str(path)


@pytest.fixture(scope="module")
def alone(random_model: Path, rows: str, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The last loss of one process."""
    tmp_path = tmp_path_factory.mktemp("alone")
    file = recipe(tmp_path, random_model, packs=4)
    return float(together(1, "tests.train.worker", "ddp", file, rows, str(tmp_path))[0])


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_learn_what_one_does(
    kind: str, tmp_path: Path, random_model: Path, rows: str, alone: float
) -> None:
    file = recipe(tmp_path, random_model, packs=2, distributed=kind)
    loss = together(2, "tests.train.worker", kind, file, rows, str(tmp_path))[0]
    assert float(loss) == pytest.approx(alone, rel=1e-5)


def test_without_our_settings_two_processes_mark_a_variable_ready_twice(
    tmp_path: Path, random_model: Path, rows: str
) -> None:
    file = recipe(tmp_path, random_model, packs=2)
    command = ("tests.train.worker", "reentrant", file, rows, str(tmp_path))
    assert "Expected to mark a variable ready only once" in together(2, *command, expect=1)[1]


def test_a_whole_run_of_two_processes_leaves_one_finished_run(
    tmp_path: Path, random_model: Path
) -> None:
    file = recipe(tmp_path, random_model, packs=2)
    outputs = ["--outputs", str(tmp_path / "outputs"), "--cache", str(tmp_path / "cache")]
    folder = Path(together(2, "train", file, *outputs)[0].strip())
    assert (tmp_path / "outputs/together/latest").resolve() == folder
    assert json.loads((folder / "metrics.json").read_text())["training"]["steps"] == 6


def test_sharding_without_a_gpu_is_refused_rather_than_left_out(
    tmp_path: Path, random_model: Path
) -> None:
    file = recipe(tmp_path, random_model, packs=2, distributed="fsdp2")
    printed = together(2, "train", file, "--outputs", str(tmp_path), expect=2)[1]
    assert "training.distributed is fsdp2, which needs GPUs" in printed

import json
import sys
from pathlib import Path

import pytest

from bench import train
from bench.rivals import environment
from bench.rivals.environment import UnavailableError
from bench.rivals.task import Task
from bench.table import ChildError
from bench.train import OURS, PADDED, TRL, Comparison, Run

TASK = Task(shape="gpt_oss", folder="nowhere")


def compared(ours: float, padded: float, trl: float, loss: float) -> Comparison:
    speeds = {OURS: ours, PADDED: padded, TRL: trl}
    return Comparison(
        runs={
            name: Run(tokens_per_second=speed, peak_bytes=2**30, adapter="nowhere")
            for name, speed in speeds.items()
        },
        before=8.8,
        after={OURS: loss, PADDED: 8.0, TRL: 7.0},
    )


@pytest.mark.parametrize(
    ("ours", "loss", "met"),
    [
        (500.0, 8.03, [True, True, True]),
        (499.0, 7.97, [False, True, True]),
        (150.0, 8.05, [False, False, False]),
    ],
)
def test_ours_is_held_against_each_side_and_its_loss_against_the_padded_one(
    ours: float, loss: float, met: list[bool]
) -> None:
    results = train.report(TASK, compared(ours, 100.0, 200.0, loss))
    judged = [result for result in results if result.met is not None]
    assert [result.baseline for result in judged] == [PADDED, TRL, PADDED]
    assert [result.met for result in judged] == met
    assert judged[0].ratio == ours / 100
    assert judged[1].ratio == ours / 200


def test_a_side_that_cannot_be_had_is_left_out_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "child", lambda *_: ({"tokens": 600, "before": 9, "after": {}}, 1))

    seconds = iter((3.0, 2.0))

    def fast(task: Task, folder: Path) -> tuple[float, int]:
        return next(seconds), 1

    def missing(task: Task, folder: Path) -> tuple[float, int]:
        raise UnavailableError("No solution found")

    def broken(task: Task, folder: Path) -> tuple[float, int]:
        raise ChildError("code ended with 1, no result:\nTraceback\nImportError: no kernel")

    task = Task(shape="mistral", folder=str(tmp_path))
    done = train.compare(task, {OURS: fast, "missing": missing, "broken": broken})
    assert {name: run.tokens_per_second for name, run in done.runs.items()} == {OURS: 300.0}
    said = capsys.readouterr().err.splitlines()
    assert "mistral, missing: left out: No solution found" in said
    assert "mistral, broken: left out: ImportError: no kernel" in said
    with pytest.raises(ChildError):
        train.compare(task, {OURS: broken})


def test_an_installation_that_fails_says_why_in_one_line() -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('No solution\\nfound')"]
    with pytest.raises(UnavailableError, match=r"ended with 1: No solution found$"):
        environment.run(fails)
    with pytest.raises(UnavailableError, match="uv-that-is-not-there is not installed"):
        environment.run(["uv-that-is-not-there", "venv"])


def test_a_task_survives_the_command_line() -> None:
    assert Task(**json.loads(TASK.json())) == TASK


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["mistral", "gpt_oss"])
def test_two_sides_train_the_same_rows_and_are_judged_by_one_loss(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SHORT", 0)
    task = Task(
        shape=shape,  # type: ignore[arg-type]
        folder=str(tmp_path / "task"),
        documents=16,
        held_out=4,
        longest=64,
        pack=512,  # as many tokens as a padded batch, so that both make two steps an epoch
        epochs=4,
    )
    (tmp_path / "task").mkdir()
    sides = {name: train.SIDES[name] for name in (OURS, PADDED)}
    done = train.compare(task, sides)
    assert set(done.runs) == {OURS, PADDED}
    assert all(run.tokens_per_second > 0 for run in done.runs.values())
    assert all(loss < done.before for loss in done.after.values())
    assert done.after[OURS] == pytest.approx(done.after[PADDED], rel=0.02)

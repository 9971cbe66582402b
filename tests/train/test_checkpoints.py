import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from train import checkpoints
from train.recipe import Recipe, load
from train.runs import write_json


def checkpoint(parent: Path, step: int) -> Path:
    folder = parent / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(b"0123456789")
    write_json(folder / checkpoints.COMPLETE, {"optimizer.pt": 10})
    return folder


def test_the_newest_complete_checkpoint_is_found_by_its_step(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-100"


@pytest.mark.parametrize("fault", ["no marker", "file cut off", "file missing", "file too many"])
def test_a_half_written_checkpoint_is_passed_over_and_said(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    if fault == "no marker":
        (bad / checkpoints.COMPLETE).unlink()
    elif fault == "file cut off":
        (bad / "optimizer.pt").write_bytes(b"01234")
    elif fault == "file missing":
        (bad / "optimizer.pt").unlink()
    else:
        (bad / "model.safetensors.part").touch()
    with caplog.at_level("INFO"):
        assert checkpoints.newest(tmp_path) == good
    assert "checkpoint-2 is incomplete" in caplog.text
    checkpoints.remove_incomplete(tmp_path)
    assert list(tmp_path.iterdir()) == [good]


def test_where_none_is_complete_training_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    assert checkpoints.newest(tmp_path) is None
    assert checkpoints.newest(tmp_path / "nothing") is None


HISTORY: list[dict[str, Any]] = [
    {"step": 1, "loss": 9.0},
    {"step": 2, "eval_loss": 3.0},
    {"step": 4, "eval_loss": 2.0},
    {"step": 6, "eval_loss": 2.0},
    {"step": 8, "eval_loss": 2.5},
]


def test_the_best_step_is_the_first_of_the_lowest_validation_loss() -> None:
    assert checkpoints.best_step(HISTORY) == 4
    assert checkpoints.best_step([{"step": 1, "loss": 9.0}]) is None


class State:
    """What the callback reads of transformers' TrainerState and TrainerControl."""

    def __init__(self, step: int, history: list[dict[str, Any]]) -> None:
        self.global_step = step
        self.log_history = history
        self.should_save = self.should_training_stop = False


def callback(tmp_path: Path, *overrides: str) -> checkpoints.Checkpoints:
    return checkpoints.Checkpoints(None, recipe(tmp_path, *overrides), None)  # type: ignore[arg-type]


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: {base: tiny}\ndata: {train: x}\n")
    return load(path, overrides, {})


def test_each_lowest_validation_loss_is_written_down(tmp_path: Path) -> None:
    watch = callback(tmp_path, "evaluation.steps=2")
    for count, saved in ((2, True), (3, True), (4, False), (5, False)):
        state = State(HISTORY[count - 1]["step"], HISTORY[:count])
        watch.on_evaluate(None, state, state)
        assert state.should_save is saved


def test_training_stops_early_after_the_patience_of_the_recipe(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = callback(tmp_path, "evaluation.steps=2", "evaluation.patience=2")
    state = State(6, HISTORY[:4])
    watch.on_evaluate(None, state, state)
    assert not state.should_training_stop
    state = State(8, HISTORY)
    with caplog.at_level("INFO"):
        watch.on_evaluate(None, state, state)
    assert state.should_training_stop
    assert "2 measurements without a lower validation loss than 2.0000 at step 4" in caplog.text


def test_old_checkpoints_go_but_the_best_stays(tmp_path: Path) -> None:
    watch = callback(tmp_path, "evaluation.steps=2", "training.keep_checkpoints=1")
    for step in (2, 4, 6, 8):
        checkpoint(tmp_path, step)
    watch._remove_old(tmp_path, State(8, HISTORY))
    assert {path.name for path in tmp_path.glob("check*")} == {"checkpoint-4", "checkpoint-8"}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_with_a_remedy(tmp_path: Path, loss: float) -> None:
    from train.errors import InputError

    with pytest.raises(InputError, match=r"at step 7: lower training\.learning_rate \(0\.0002\)"):
        callback(tmp_path).on_log(None, State(7, []), None, {"loss": loss})


def test_what_torch_wrote_into_a_checkpoint_is_read_as_data_and_never_as_code() -> None:
    found = importlib.util.find_spec("transformers")
    assert found and found.origin
    source = (Path(found.origin).parent / "trainer.py").read_text(encoding="utf-8")
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls
    for call in calls:
        given = {one.arg: ast.unparse(one.value) for one in call.keywords}
        assert given.get("weights_only") == "True", ast.unparse(call)

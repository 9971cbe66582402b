from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.tree import ROOT
from train import sft, trainer
from train.data.convert import convert, read
from train.data.tokens import tokenise
from train.interruption import Stop
from train.model import Base, load_model
from train.recipe import DataConfig, Recipe, load

pytestmark = pytest.mark.slow


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: x\nmodel: {base: tiny}\ndata: {train: x}\n"
        "lora: {r: 4, target_parameters: [mlp.experts.gate_up_proj, mlp.experts.down_proj]}\n"
        "training: {max_steps: 12, learning_rate: 1e-2, packs_per_step: 1, max_length: 512,\n"
        "  logging_steps: 1}\n"
    )
    return load(path, overrides, {})


Learn = Callable[..., tuple[Any, dict[str, Any]]]


@pytest.fixture
def learn(tmp_path: Path, base: Base, tokenizer: Any) -> Learn:
    """Trains on the sample of chat messages; the model and what was measured."""
    convert([ROOT / "data/chat_messages.jsonl"], DataConfig(train=""), tmp_path, "train")
    tokens = tmp_path / "train.tokens.parquet"
    tokenise(tmp_path / "train.parquet", tokens, tokenizer, {}, 512)

    def train(*overrides: str) -> tuple[Any, dict[str, Any]]:
        model = load_model(base)
        settings = recipe(tmp_path, *overrides)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        measured = sft.train(model, tokenizer, tokens, None, settings, base, folder, Stop(), [])
        return model, measured

    return train


def test_training_on_packs_lowers_the_loss_of_the_answers_and_logs_no_router_loss(
    tmp_path: Path, base: Base, tokenizer: Any, learn: Learn, caplog: pytest.LogCaptureFixture
) -> None:
    from train.evaluate import loss

    rows = list(islice(read(tmp_path / "train.parquet"), 8))
    before = loss(load_model(base), tokenizer, rows, {})
    with caplog.at_level("INFO"):
        model, measured = learn()
    assert loss(model, tokenizer, rows, {}) < before - 0.3
    assert measured["steps"] == 12
    assert measured["first_loss"] < before + 0.5
    assert "step 12/12" in caplog.text
    assert "tokens/s" in caplog.text


def test_left_to_its_default_the_routers_loss_would_be_logged_as_the_loss(
    learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, TRL no longer takes the 0.9 of the model's config, and the 0 can go."""
    _, right = learn("training.max_steps=1")
    arguments = trainer.arguments
    monkeypatch.setattr(
        trainer,
        "arguments",
        lambda *a, **k: {**arguments(*a, **k), "router_aux_loss_coef": None},
    )
    _, wrong = learn("training.max_steps=1")
    assert wrong["first_loss"] > right["first_loss"] + 1

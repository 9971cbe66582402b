"""Whole runs of every method on every architecture, a few steps each."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.train import shapes
from tests.tree import ROOT
from train.interruption import Stop
from train.recipe import load
from train.run import run

pytestmark = pytest.mark.slow
EXPERTS = "lora.target_parameters=[mlp.experts.gate_up_proj, mlp.experts.down_proj]"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    for kind in ("gpt_oss", "mistral", "phi3"):
        shapes.make(kind, folder / kind)
    return folder


def finished(tmp_path: Path, model: Path, *overrides: str) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: whole\nmodel: {{base: '{model}'}}\n"
        f"data: {{train: {ROOT}/data/chat_messages.jsonl}}\n"
        "lora: {r: 4}\n"
        "training: {max_steps: 6, max_length: 512, packs_per_step: 1, logging_steps: 1,\n"
        "  learning_rate: 5e-3}\n"
        "evaluation: {rows: 4, max_new_tokens: 8, samples: 2}\n"
    )
    folder = run(
        load(path, overrides, {}), outputs=tmp_path / "outputs", cache=tmp_path, stop=Stop()
    )
    assert folder is not None
    return folder, json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("gpt_oss", [EXPERTS]),
        ("gpt_oss", ["tuning=full", "training.learning_rate=1e-3"]),
        ("mistral", []),
        ("mistral", ["tuning=qlora"]),
        ("mistral", ["training.gradient_checkpointing=true", "lora.target_modules=[q_proj]"]),
        ("phi3", []),
        ("phi3", ["tuning=qlora"]),
        ("phi3", ["tuning=full", "training.packing=false", "training.learning_rate=1e-3"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "lora",
)
def test_every_architecture_runs_through_the_same_path(
    models: Path, tmp_path: Path, kind: str, overrides: list[str]
) -> None:
    folder, metrics = finished(tmp_path, models / kind, *overrides)
    assert metrics["after"]["loss"] < metrics["before"]["loss"]
    assert metrics["merge"]["difference"] <= metrics["merge"]["tolerance"]
    assert (folder / "merged/model.safetensors").is_file()
    assert (folder / "adapter").exists() is ("tuning=full" not in overrides)
    assert (folder / "report.html").is_file()
    assert (folder.parent / "latest").resolve() == folder


def test_preferences_are_learned_on_top_of_an_earlier_adapter(models: Path, tmp_path: Path) -> None:
    first, _ = finished(tmp_path, models / "gpt_oss", EXPERTS)
    _, metrics = finished(
        tmp_path,
        models / "gpt_oss",
        *("name=preferred", "method=dpo", f"model.adapter={first}/adapter", EXPERTS),
        *(f"data.train={ROOT}/data/preference_pairs.jsonl", "data.validation_share=0"),
        *("training.max_steps=15", "training.learning_rate=3e-3", "training.packs_per_step=4"),
    )
    assert metrics["training"]["first_loss"] == pytest.approx(0.693147, abs=1e-4)
    assert metrics["after"]["learned_share"] > 0.9


def test_the_checkpoint_of_the_lowest_validation_loss_is_kept(models: Path, tmp_path: Path) -> None:
    folder, metrics = finished(
        tmp_path,
        models / "mistral",
        *("evaluation.steps=2", "training.learning_rate=0.3", "training.scheduler=constant"),
        *("training.max_steps=12", "evaluation.patience=3", "training.max_grad_norm=1000"),
    )
    history = json.loads((folder / "history.json").read_text())
    validation = {e["step"]: e["eval_loss"] for e in history if "eval_loss" in e}
    best = min(validation, key=lambda step: validation[step])
    assert metrics["training"]["kept_step"] == best
    assert metrics["after"]["loss"] == pytest.approx(validation[best], rel=0.05)


def test_a_row_that_is_too_long_is_counted_not_hidden(models: Path, tmp_path: Path) -> None:
    folder, _ = finished(tmp_path, models / "mistral", "training.max_length=150")
    tokens = json.loads((folder / "data/report.json").read_text())["train"]["tokens"]
    assert tokens["truncated"] > 0
    assert tokens["fully_masked"] > 0

"""This project's default recipe: packed rows, and what train/ chooses for this processor."""

import json
from pathlib import Path

from bench.rivals.task import ADAPTED, Task, answer, read
from train.recipe import (
    DataConfig,
    EvaluationConfig,
    LoraConfig,
    ModelConfig,
    Recipe,
    TrainingConfig,
)


def main() -> None:
    task, folder = read()
    from transformers import AutoTokenizer

    from train import interruption, model, sft, trainer

    recipe = _recipe(task)
    base = model.resolve(recipe, folder)
    network = model.load_model(base)
    # not model.load_tokenizer: it brings a template, and these rows are tokens already
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    with interruption.caught() as stop:
        measured = sft.train(network, tokenizer, task.rows, None, recipe, base, folder, stop, [])
    trainer.keep(folder, measured["kept_step"], full=False)
    answer(seconds=_loop_seconds(folder / "history.json"))


def _recipe(task: Task) -> Recipe:
    return Recipe(
        name="bench",
        model=ModelConfig(base=str(task.base)),
        data=DataConfig(train=str(task.rows)),
        lora=LoraConfig(r=task.rank, alpha=task.alpha, target_modules=list(ADAPTED)),
        training=TrainingConfig(
            epochs=task.epochs,
            learning_rate=task.learning_rate,
            scheduler="linear",
            warmup=0,
            max_length=task.pack,
            packs_per_step=1,
            seed=task.seed,
            tracking=False,
        ),
        evaluation=EvaluationConfig(rows=0),
    )


def _loop_seconds(history: Path) -> float:
    entries = json.loads(history.read_text(encoding="utf-8"))
    return next(float(e["train_runtime"]) for e in reversed(entries) if "train_runtime" in e)


if __name__ == "__main__":
    main()

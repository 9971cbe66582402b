"""Supervised fine-tuning with TRL, configured from the recipe.

    measured = train(model, tokenizer, prepared, recipe, base, run, stop, callbacks)

Rows come as `input_ids` and `labels` (train/data/tokens.py), so what is learned was settled, and
checked against the template, before this starts.
"""

import logging
from pathlib import Path
from typing import Any

from train import adapter, distributed, trainer
from train.interruption import Stop
from train.model import Base
from train.recipe import Recipe

log = logging.getLogger(__name__)

CACHE = "cache"
"""Folder beside the rows for what the libraries keep while they train."""


def train(
    model: Any,
    tokenizer: Any,
    rows: Path,
    validation: Path | None,
    recipe: Recipe,
    base: Base,
    run: Path,
    stop: Stop,
    callbacks: list[Any],
) -> dict[str, Any]:
    """Train on `rows` (Parquet of input_ids, labels); leaves checkpoints, returns figures."""
    from trl import SFTTrainer

    learner = trainer.traced(SFTTrainer)(
        model,
        arguments(recipe, base, run, parameters=model.num_parameters()),
        train_dataset=tokens(rows),
        eval_dataset=tokens(validation) if validation and recipe.evaluation.steps else None,
        processing_class=tokenizer,
        peft_config=adapter.config(model, recipe),
        callbacks=callbacks,
    )
    trainable = sum(p.numel() for p in learner.model.parameters() if p.requires_grad)
    log.info(
        "training: %s trainable parameters, %s packs", f"{trainable:,}", len(learner.train_dataset)
    )
    return trainer.fit(learner, recipe, run, stop)


def tokens(rows: Path) -> Any:
    """The tokenised rows as TRL takes them, without a second copy where one is there already."""
    from datasets import load_dataset

    cache = str(rows.parent / f"{CACHE}-{distributed.rank()}")
    dataset = load_dataset("parquet", data_files=str(rows), split="train", cache_dir=cache)
    return dataset.select_columns(["input_ids", "labels"])


def arguments(recipe: Recipe, base: Base, run: Path, *, parameters: int) -> Any:
    """TRL's SFTConfig for the recipe."""
    from trl import SFTConfig

    return SFTConfig(
        **trainer.arguments(recipe, base.device, run, parameters=parameters),
        bf16=base.autocast,
        max_length=recipe.training.max_length,
        packing=recipe.training.packing,
        packing_strategy="bfd",
        # one pack per micro-batch: two would be flattened into one of quadratic cost
        eval_packing=recipe.training.packing,
    )

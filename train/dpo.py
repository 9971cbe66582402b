"""Direct preference optimisation with TRL: of two answers, prefer the chosen one.

    measured = train(model, tokenizer, pairs, validation, recipe, base, run, stop, callbacks)

The model that it starts from (base, and an earlier SFT adapter merged in by `model.adapter`) is
also the reference that it is held to: with an adapter that is the same model with the new adapter
switched off, so no second copy is in memory.
"""

from pathlib import Path
from typing import Any

from train import adapter, trainer
from train.interruption import Stop
from train.model import Base, load_model
from train.recipe import Recipe


def train(
    model: Any,
    tokenizer: Any,
    pairs: Path,
    validation: Path | None,
    recipe: Recipe,
    base: Base,
    run: Path,
    stop: Stop,
    callbacks: list[Any],
) -> dict[str, Any]:
    """Train on `pairs` (Parquet of messages and rejected); leaves checkpoints, returns figures."""
    from trl import DPOTrainer

    full = recipe.tuning == "full"
    learner = trainer.traced(DPOTrainer)(
        model,
        ref_model=load_model(base) if full else None,
        args=arguments(recipe, base, run, parameters=model.num_parameters()),
        train_dataset=preferences(pairs, recipe),
        eval_dataset=preferences(validation, recipe)
        if validation and recipe.evaluation.steps
        else None,
        processing_class=tokenizer,
        peft_config=adapter.config(model, recipe),
        callbacks=callbacks,
    )
    return trainer.fit(learner, "pairs", recipe, run, stop)


def preferences(pairs: Path, recipe: Recipe) -> Any:
    """The pairs as TRL takes them: prompt, chosen and rejected, each a list of messages."""

    def split(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "prompt": row["messages"][:-1],
            "chosen": row["messages"][-1:],
            "rejected": [row["rejected"]],
            "chat_template_kwargs": {"current_date": recipe.data.current_date},
        }

    return trainer.dataset(pairs).map(split, remove_columns=["messages"])


def arguments(recipe: Recipe, base: Base, run: Path, *, parameters: int) -> Any:
    """TRL's DPOConfig for the recipe."""
    from trl import DPOConfig

    return DPOConfig(
        **trainer.arguments(recipe, base.device, run, parameters=parameters),
        bf16=base.autocast,
        max_length=recipe.training.max_length,
        beta=recipe.dpo.beta,
        loss_type=[recipe.dpo.loss],
    )

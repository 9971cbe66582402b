"""Supervised fine-tuning with TRL, configured from the recipe.

    measured = train(model, tokenizer, rows, validation, recipe, base, run, stop, callbacks)

Rows come as `input_ids` and `labels` (train/data/tokens.py), so what is learned was settled, and
checked against the template, before this starts.
"""

import itertools
import logging
from pathlib import Path
from typing import Any

from train import adapter, attention, distributed, packing, trainer
from train import rows as rows_of_packs
from train.data.tokens import IGNORED
from train.interruption import Stop
from train.model import Base
from train.recipe import Recipe

log = logging.getLogger(__name__)


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
    learner = trainer_class()(
        model,
        arguments(recipe, base, run, parameters=model.num_parameters()),
        train_dataset=tokens(rows),
        eval_dataset=tokens(validation) if validation and recipe.evaluation.steps else None,
        processing_class=tokenizer,
        peft_config=adapter.config(model, recipe),
        callbacks=callbacks,
    )
    loaded = model.config._attn_implementation
    try:
        checks = pack_well(learner, model, recipe, base) if recipe.training.packing else {}
        return {**trainer.fit(learner, "packs", recipe, run, stop), "checks": checks}
    finally:
        model.set_attn_implementation(loaded)  # which takes batches of every kind


def pack_well(learner: Any, model: Any, recipe: Recipe, base: Base) -> dict[str, Any]:
    """Set the fastest attention that is right on packs, and see that rows stay apart; the figures.

    `model` is what `learner` trains, without its adapter. Raises VerificationError where rows see
    each other, or where the recipe's own choice is wrong.
    """
    checks: dict[str, Any] = {}
    pack = learner.train_dataset[0]
    if base.device == "cpu":
        rows_of_packs.use(model)
        log.info("attention: row by row while training (a pack then costs what its rows cost)")
    else:
        verdict = attention.probe(
            learner.model,
            learner.data_collator([pack]),
            attention.candidates(base.model_type),
            dtype=base.publish,
            asked=recipe.model.attention,
        )
        checks["attention"] = verdict.as_dict()
        # each process has timed for itself
        chosen = distributed.from_main(verdict.chosen)
        model.set_attn_implementation(chosen)
    ends = itertools.accumulate(pack["seq_lengths"])
    difference = packing.check_parity(
        learner.model,
        [
            pack["input_ids"][end - n : end]
            for end, n in zip(ends, pack["seq_lengths"], strict=True)
        ],
        dtype=base.publish,
        max_length=recipe.training.max_length,
    )
    return {**checks, "packing": {"difference": difference}}


def trainer_class() -> type[Any]:
    """TRL's trainer; on a CPU with the loss of the labelled tokens alone.

    TRL's own loss is made for fused kernels of a GPU. On a CPU it scores every token, labelled or
    not, which takes a third of a step; what comes out is the same.
    """
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class Learner(trainer.traced(SFTTrainer)):  # type: ignore[misc]
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if self.args.device.type != "cpu" or self.aux_loss_enabled or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs["labels"][0]  # one pack or row per micro-batch
            places = (labels[1:] != IGNORED).nonzero().flatten()
            batch = {key: value for key, value in inputs.items() if key != "labels"}
            logits = model(**batch, logits_to_keep=places, use_cache=False).logits[0].float()
            loss = cross_entropy(logits, labels[places + 1], reduction="sum")
            if num_items_in_batch is None:
                return loss / len(places)
            # counted over all processes, whose gradients are averaged
            return loss / num_items_in_batch * self.accelerator.num_processes

    return Learner


def tokens(rows: Path) -> Any:
    """The tokenised rows as TRL takes them."""
    return trainer.dataset(rows).select_columns(["input_ids", "labels"])


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

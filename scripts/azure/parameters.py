"""Training parameters of a registry's pipeline: the model's defaults, recipe, cloud.parameters.

    slots = slots_of(component)                         # what the component takes
    merged = merge(model.defaults, recipe, slots, rows=1200, gpus=1)
    merged.values, merged.notes                         # by the component's names; what was left

Later ones go over earlier ones. What the component does not take is left out and told, since the
service refuses a job with an unknown input; what it wants as text becomes text. Nothing here calls
Azure.
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.errors import UsageError
from train.recipe import Recipe

MACHINES = ("compute_", "instance_type_", "num_nodes_", "number_of_gpu_", "shm_size_")
"""Beginnings of inputs that say where a step runs, not what it trains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One input of a component."""

    type: str
    enum: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    optional: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What is handed to the component, and what the user is told of it."""

    values: Mapping[str, Any]
    notes: tuple[str, ...]


def slots_of(component: Any) -> dict[str, Slot]:
    """The inputs of the SDK's component entity."""
    return {
        str(name): Slot(
            type=str(entry.type),
            enum=tuple(str(value) for value in entry.enum or ()),
            minimum=None if entry.min is None else float(entry.min),
            maximum=None if entry.max is None else float(entry.max),
            optional=str(entry.optional).lower() == "true",
        )
        for name, entry in component.inputs.items()
    }


def merge(
    defaults: Mapping[str, Any],
    recipe: Recipe,
    slots: Mapping[str, Slot],
    *,
    rows: int = 0,
    gpus: int = 1,
) -> Merged:
    """All training parameters; `rows` and `gpus` of all machines, for what counts in steps.

    UsageError for a parameter of cloud.parameters that the component does not take, and for a
    value that it would refuse.
    """
    own, notes = dict(of_recipe(recipe, rows=rows, gpus=gpus)), []
    values: dict[str, Any] = {}
    for name, value in defaults.items():
        if name not in slots:
            notes.append(f"{name} {value} is the model's default, but no input of the pipeline")
        else:
            values[name] = _fitted(name, value, slots[name], "the model's default")
    for name, value in own.items():
        if name not in slots:
            notes.append(f"{name} {value} is of the recipe, but no input of the pipeline")
            continue
        fitted = _fitted(name, value, slots[name], "of the recipe")
        if name in values and values[name] != fitted:
            notes.append(f"{name} {fitted} is the recipe's; the model's own default {values[name]}")
        values[name] = fitted
    for name, value in recipe.cloud.parameters.items():
        if name not in slots:
            near = difflib.get_close_matches(name, slots, n=1, cutoff=0)
            raise UsageError(
                f"cloud.parameters.{name} is no input of the pipeline"
                f"{f'; the nearest is {near[0]}' if near else ''}."
            )
        values[name] = _fitted(name, value, slots[name], "of cloud.parameters")
    notes += _warnings(defaults, values)
    notes += _not_done(recipe)
    return Merged(values=values, notes=tuple(notes))


def of_recipe(recipe: Recipe, *, rows: int = 0, gpus: int = 1) -> Iterator[tuple[str, Any]]:
    """The recipe's own settings by the names of the registry's pipelines.

    UsageError for what the pipelines cannot do at all.
    """
    if recipe.method != "sft":
        raise UsageError(
            f"method is {recipe.method}: the registry's pipelines learn answers only; set "
            "method: sft, or cloud.route: command_job."
        )
    if recipe.tuning == "qlora":
        raise UsageError(
            "tuning is qlora: the registry's pipelines hold no base in 4 bits; set tuning: lora, "
            "or cloud.route: command_job."
        )
    training, evaluation = recipe.training, recipe.evaluation
    lora = recipe.tuning == "lora"
    yield "apply_lora", lora
    if lora:
        yield "lora_r", recipe.lora.r
        yield "lora_alpha", recipe.lora.alpha
        yield "lora_dropout", recipe.lora.dropout
        yield "merge_lora_weights", True
    yield "apply_deepspeed", True
    yield "deepspeed_stage", 2
    yield "precision", 32 if recipe.model.dtype == "float32" else 16
    yield "num_train_epochs", max(1, math.ceil(training.epochs))
    if training.max_steps > 0:
        yield "max_steps", training.max_steps
    yield "per_device_train_batch_size", 1
    yield "per_device_eval_batch_size", 1
    yield "gradient_accumulation_steps", training.packs_per_step
    yield "learning_rate", training.learning_rate
    yield "lr_scheduler_type", training.scheduler
    yield "warmup_steps", warmup_steps(recipe, rows=rows, gpus=gpus)
    yield "weight_decay", training.weight_decay
    yield "adam_beta2", training.adam_beta2
    yield "max_grad_norm", training.max_grad_norm
    yield "max_seq_length", training.max_length
    yield "logging_strategy", "steps"
    yield "logging_steps", training.logging_steps
    yield "save_total_limit", training.keep_checkpoints
    yield "seed", training.seed
    if evaluation.steps:
        yield "evaluation_strategy", "steps"
        yield "eval_steps", evaluation.steps
    if evaluation.patience:
        yield "apply_early_stopping", True
        yield "early_stopping_patience", evaluation.patience


def warmup_steps(recipe: Recipe, *, rows: int, gpus: int) -> int:
    """The recipe's warm-up in steps, which the pipelines want; 0 where the rows are not counted."""
    training = recipe.training
    if training.warmup >= 1:
        return round(training.warmup)
    steps = training.max_steps
    if steps <= 0:
        each = training.packs_per_step * max(1, gpus)
        steps = math.ceil(rows / each) * max(1, math.ceil(training.epochs))
    return math.ceil(training.warmup * steps)


def display_name(recipe: Recipe, model: str, values: Mapping[str, Any], gpus: int) -> str:
    """What the studio shows: model, recipe, and the settings that runs differ by."""
    batch = (
        int(values.get("per_device_train_batch_size", 1))
        * int(values.get("gradient_accumulation_steps", 1))
        * max(1, gpus)
    )
    deepspeed = values.get("apply_deepspeed", "false") == "true"
    stage = f"ds{values.get('deepspeed_stage', '2')}" if deepspeed else "nods"
    lora = "lora" if values.get("apply_lora", "false") == "true" else "nolora"
    return (
        f"{model}-{recipe.name}-bs{batch}-{values.get('lr_scheduler_type', 'linear')}-{stage}-"
        f"{lora}-save_limit{values.get('save_total_limit', -1)}"
        f"-seqlen{values.get('max_seq_length', -1)}"
    )


def text(value: Any) -> str:
    """A value as the components write it: `true`, `16`, `2e-05`."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _fitted(name: str, value: Any, slot: Slot, where: str) -> Any:
    """The value as the input wants it; UsageError where it cannot be that."""
    try:
        match slot.type:
            case "integer":
                number = float(value)
                if not number.is_integer():
                    raise ValueError
                fitted: Any = int(number)
            case "number":
                fitted = float(value)
            case "boolean":
                fitted = text(value).lower() == "true"
            case _:
                fitted = text(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} {value!r} ({where}) must be of type {slot.type}.") from None
    if slot.enum and fitted not in slot.enum:
        if fitted.lower() in slot.enum:
            return fitted.lower()
        raise UsageError(
            f"{name} is {value!r} ({where}): the pipeline takes {' or '.join(slot.enum)}."
        )
    size = fitted if isinstance(fitted, int | float) else None
    low, high = slot.minimum, slot.maximum
    if size is not None and (
        (low is not None and size < low) or (high is not None and size > high)
    ):
        raise UsageError(
            f"{name} is {value} ({where}): the pipeline takes "
            f"{'any number' if low is None else f'{low:g}'} to "
            f"{'any number' if high is None else f'{high:g}'}."
        )
    return fitted


def _warnings(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[str]:
    """Where a value leaves the range in which the model's authors have tried it."""
    for name, value in values.items():
        for end, wrong in (("min", "below"), ("max", "above")):
            try:
                bound = float(defaults[f"{name}_{end}"])
            except (KeyError, TypeError, ValueError):
                continue
            if (value < bound) if end == "min" else (value > bound):
                yield f"{name} {value} is {wrong} {bound:g}, which the model's authors advise"


def _not_done(recipe: Recipe) -> Iterator[str]:
    """What the recipe asks for and the pipelines do otherwise."""
    training = recipe.training
    if training.epochs != math.ceil(training.epochs) and training.max_steps <= 0:
        yield (
            f"training.epochs {training.epochs:g} becomes {math.ceil(training.epochs)}: the "
            "pipeline counts whole ones"
        )
    if training.packing:
        yield "training.packing: the pipeline packs no rows, so a step sees fewer tokens than here"
    if recipe.lora.target_parameters and recipe.tuning == "lora":
        yield "lora.target_parameters: the pipeline chooses itself what it adapts"
    if recipe.model.adapter:
        yield "model.adapter: the pipeline starts from the registry's model alone"

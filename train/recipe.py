"""The recipe of a fine-tune: frozen dataclasses are the schema, YAML only overrides their defaults.

    load("recipes/tiny-ja.yaml", ["training.max_steps=50"]) -> Recipe

Precedence: defaults < YAML < environment (`RECIPE_TRAINING__MAX_STEPS=50`) < command line
(`training.max_steps=50`). An unknown key is an error that names the nearest known one; a key that
the field's libraries have retired is answered with its present name.

Only PyYAML is imported here, because scripts/ reads recipes on a machine without torch. Whether
files exist, columns fit and the model loads is checked where those things are used.
"""

import dataclasses
import datetime
import difflib
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from train.errors import InputError as InputError  # scripts/ knows of train/ this file alone

ENV_PREFIX = "RECIPE_"

RETIRED = {
    "max_seq_length": "training.max_length",
    "warmup_ratio": "training.warmup",
    "warmup_steps": "training.warmup",
    "evaluation_strategy": "evaluation.rows (evaluation runs before and after training)",
    "group_by_length": "training.packing",
    "num_train_epochs": "training.epochs",
    "per_device_train_batch_size": "training.packs_per_step",
    "gradient_accumulation_steps": "training.packs_per_step",
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "model_name_or_path": "model.base",
    "dataset_name": "data.train",
}
"""Names that users bring from other kits, and where the value goes here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which weights to start from."""

    base: str
    """`tiny` (made by train/tiny.py), a folder with config.json, or a hub id."""
    revision: str | None = None
    """Commit id of the hub model, so that a run can be repeated."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU; the run prints which and why."""
    attention: str = "auto"
    """Attention implementation; `auto` is eager for gpt-oss (its sinks need it), else sdpa."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which rows to learn from, and how they become messages."""

    train: str
    """JSONL file of training rows, relative to the working directory."""
    validation: str | None = None
    """JSONL file of held-out rows; without one, evaluation uses training rows and says so."""
    form: Literal[
        "auto", "question_answer", "chat", "dialogue_summary", "azure_openai", "preference"
    ] = "auto"
    """Form of the rows; `auto` recognises it from the keys of the first rows."""
    reasoning_language: str | None = None
    """Written into the system message as `reasoning language: …` where a row has no system."""
    persona: str = ""
    """Further system text, below the reasoning language."""
    max_bad_rows: int = 0
    """The run stops when more rows than this are bad."""
    current_date: str = "2026-01-01"
    """Date that the template writes in training, pinned so that a run can be repeated."""
    freeze_date: bool = False
    """Serve with the training date too: right for a model too small to know other dates."""

    def __post_init__(self) -> None:
        if self.max_bad_rows < 0:
            raise InputError(
                f"data.max_bad_rows is {self.max_bad_rows}: it counts rows; set 0 or more."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """The adapter."""

    r: int = 8
    """Rank of the two factors."""
    alpha: int = 16
    """Scale of the update is alpha / r."""
    dropout: float = 0.0
    """Must be 0 with `target_parameters`: peft's parameter wrapper has no dropout."""
    target_modules: str | list[str] = "all-linear"
    """Linear modules to adapt; in gpt-oss `all-linear` means attention only."""
    target_parameters: list[str] = field(default_factory=list)
    """Expert weights to adapt, by suffix: `mlp.experts.gate_up_proj`, `mlp.experts.down_proj`."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise InputError(f"lora.r is {self.r}: the rank must be at least 1.")
        if self.dropout and self.target_parameters:
            raise InputError(
                f"lora.dropout is {self.dropout}, but adapting experts (lora.target_parameters) "
                "works only without dropout: set lora.dropout to 0."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Optimisation."""

    epochs: float = 1.0
    """Passes over the rows; ignored when `max_steps` is set."""
    max_steps: int = -1
    """Optimiser steps; -1 = by epochs."""
    learning_rate: float = 2e-4
    """Peak learning rate."""
    warmup: float = 0.03
    """Below 1: share of all steps; 1 or more: steps."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after the warm-up; cosine ends at a tenth of the peak."""
    max_length: int = 2048
    """Tokens in a pack, and the longest row; longer rows are cut at the end."""
    packing: bool = True
    """Pack rows best-fit-decreasing, with positions and attention kept apart per row."""
    packs_per_step: int = 8
    """Packs (rows without packing) per step: one per micro-batch, gradients accumulated."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment; lower forgets faster, which suits short runs."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: needed to adapt the experts of a large model."""
    seed: int = 0
    """Seed of initialisation and row order."""
    logging_steps: int = 10
    """Steps between progress lines."""

    def __post_init__(self) -> None:
        if self.max_steps == 0 or self.max_steps < -1:
            raise InputError(
                f"training.max_steps is {self.max_steps}: give at least 1 step, or -1 for epochs."
            )
        for name in ("epochs", "learning_rate", "max_length", "packs_per_step", "logging_steps"):
            if getattr(self, name) <= 0:
                raise InputError(
                    f"training.{name} is {getattr(self, name)}: it must be more than 0."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """What is measured before and after training."""

    rows: int = 64
    """Rows to evaluate on; -1 = all; 0 = none."""
    max_new_tokens: int = 256
    """Longest answer generated for the exact-answer count."""
    batch_size: int = 16
    """Answers generated side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One fine-tune."""

    name: str
    """Name of the recipe and of the model that comes of it; names folders under outputs/."""
    model: ModelConfig
    data: DataConfig
    lora: LoraConfig = field(default_factory=LoraConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        # the name becomes a folder, an image label and an Azure ML asset name
        if not self.name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in self.name):
            raise InputError(f"name is {self.name!r}: use letters, digits, - and _ only.")


def load(
    path: str | Path, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Recipe:
    """Read the recipe at `path` and apply the environment, then `overrides` (`section.key=value`).

    Raises InputError for a missing file, broken YAML, an unknown or retired key, a missing
    required key, or a value of the wrong type.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(str(p) for p in Path("recipes").glob("*.yaml"))
        raise InputError(
            f"recipe {path} does not exist; there are: {', '.join(near) or 'none'}."
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"recipe {path} holds {type(values).__name__}, not keys and values.")
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENV_PREFIX):
            _set(values, name.removeprefix(ENV_PREFIX).lower().split("__"), text, f"${name}")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"{override!r} is no override: write section.key=value.")
        _set(values, key.split("."), text, f"override {override!r}")
    recipe = _build(Recipe, values, "", str(path))
    assert isinstance(recipe, Recipe)
    return recipe


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every field with the value that the run uses."""
    text: str = yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True)
    return text


def _set(values: dict[str, Any], keys: Sequence[str], text: str, where: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    inner = values
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            raise InputError(f"{where}: {key} is a value, not a section.")
    inner[keys[-1]] = value


def _build(cls: type[Any], values: Any, prefix: str, where: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"{where}: {prefix.rstrip('.')} must be a section of keys and values.")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise InputError(f"{where}: unknown key {prefix}{key}{_hint(str(key), list(fields))}.")
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for name, f in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f"{prefix}{name}", where)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: {prefix}{name} is missing; it has no default.")
    try:
        return cls(**arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _hint(key: str, known: list[str]) -> str:
    if key in RETIRED:
        return f"; here it is {RETIRED[key]}"
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _convert(hint: Any, value: Any, key: str, where: str) -> Any:
    """`value` as `hint`; YAML 1.1 reads 2e-4 as text, so numbers are also taken from strings."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, f"{key}.", where)
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    for option in options:
        origin = typing.get_origin(option)
        if origin is Literal:
            if value in typing.get_args(option):
                return value
        elif origin is list:
            if isinstance(value, list) and all(isinstance(v, str) for v in value):
                return value
        elif option is float and not isinstance(value, bool):
            try:
                return float(value)
            except (TypeError, ValueError):
                continue
        elif option is str and isinstance(value, datetime.date):
            return value.isoformat()  # YAML reads an unquoted 2026-01-01 as a date
        elif isinstance(option, type) and type(value) is option:
            return value
    wanted = " or ".join(
        ", ".join(map(repr, typing.get_args(o)))
        if typing.get_origin(o) is Literal
        else str(getattr(o, "__name__", o)).replace("NoneType", "null")
        for o in options
    )
    raise InputError(f"{where}: {key} is {value!r}; it must be {wanted}.")

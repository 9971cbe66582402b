"""The recipe of a fine-tune: frozen dataclasses are the schema, YAML only overrides their defaults.

    load("recipes/tiny-ja.yaml", ["training.max_steps=50"]) -> Recipe

Precedence: defaults < YAML < environment (`RECIPE_TRAINING__MAX_STEPS=50`) < command line
(`training.max_steps=50`). An unknown key is an error that names the nearest known one; a key that
the field's libraries have retired is answered with its present name.

Only PyYAML is imported here, because scripts/ reads recipes on a machine without torch. Whether
files exist, columns fit and the model loads is checked where those things are used
(`python -m train RECIPE --check` does so without loading weights).
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from train.configuration import build, override
from train.errors import InputError as InputError  # scripts/ knows of train/ this file alone

ENV_PREFIX = "RECIPE_"

RETIRED = {
    "max_seq_length": "training.max_length",
    "cutoff_len": "training.max_length",
    "sequence_len": "training.max_length",
    "warmup_ratio": "training.warmup (below 1 it is a share of all steps)",
    "warmup_steps": "training.warmup (1 or more are steps)",
    "evaluation_strategy": "evaluation.steps",
    "eval_strategy": "evaluation.steps",
    "eval_steps": "evaluation.steps",
    "save_strategy": "training.checkpoint_steps",
    "save_steps": "training.checkpoint_steps",
    "save_total_limit": "training.keep_checkpoints",
    "load_best_model_at_end": "evaluation.keep_best",
    "early_stopping_patience": "evaluation.patience",
    "group_by_length": "training.packing",
    "num_train_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "per_device_train_batch_size": "training.packs_per_step",
    "micro_batch_size": "training.packs_per_step",
    "gradient_accumulation_steps": "training.packs_per_step",
    "per_device_eval_batch_size": "evaluation.batch_size",
    "lr_scheduler_type": "training.scheduler",
    "adam_epsilon": "fixed at 1e-8; leave it out",
    "bf16": "model.dtype",
    "fp16": "model.dtype (bfloat16)",
    "load_in_4bit": "tuning: qlora",
    "attn_implementation": "model.attention",
    "torch_dtype": "model.dtype",
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target_modules": "lora.target_modules",
    "lora_target_parameters": "lora.target_parameters",
    "model_name_or_path": "model.base",
    "base_model": "model.base",
    "model_revision": "model.revision",
    "tokenizer": "model.base (a model brings its own)",
    "dataset_name": "data.train (hf://owner/name@revision)",
    "datasets": "data.train",
    "test_size": "data.validation_share",
    "val_size": "data.validation_share",
    "val_set_size": "data.validation_share",
    "report_to": "training.tracking",
    "output_dir": "the command line's --outputs",
    "overwrite_output_dir": "not needed: every run has its own folder, and goes on in it",
    "resume_from_checkpoint": "not needed: the same command goes on from the newest checkpoint",
    "logging_dir": "the command line's --outputs",
    "save_safetensors": "not needed: weights are always safetensors",
    "include_tokens_per_second": "not needed: every progress line has it",
    "dataset_batch_size": "not needed: rows stream in batches of fixed memory",
    "jit_mode_eval": "not needed; leave it out",
    "router_aux_loss_coef": "fixed at 0; leave it out",
    "trust_remote_code": "always off; choose a model that transformers knows",
}
"""Names that users bring from other kits or older releases, and where the value goes here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which weights to start from."""

    base: str
    """`tiny` (made by train/tiny.py), a folder with config.json, or a hub id."""
    revision: str | None = None
    """Commit id of the hub model, so that a run can be repeated."""
    adapter: str | None = None
    """Adapter folder of an earlier run on the same base, merged in before this run starts."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the processor computes in it, else float32; the run prints why."""
    attention: str = "auto"
    """Attention implementation; `auto` takes the fastest that gives right losses on this device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which rows to learn from, and how they become messages."""

    train: str
    """JSONL, JSON, Parquet, CSV file or folder of such, `hf://owner/name@revision`, `azureml:`."""
    validation: str | None = None
    """Held-out rows, in the same kinds of place."""
    test: str | None = None
    """Rows that the registry's pipeline is given as its test file; nothing else reads it."""
    validation_share: float = 0.05
    """Share of the training rows to hold out where `validation` is not set; 0 = none."""
    form: Literal[
        "auto", "question_answer", "chat", "dialogue_summary", "azure_openai", "preference"
    ] = "auto"
    """Form of the rows; `auto` recognises it from the keys of the first row."""
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
        if not 0 <= self.validation_share < 1:
            raise InputError(
                f"data.validation_share is {self.validation_share}: it must be from 0 to below 1."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """The adapter, where tuning is lora or qlora."""

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
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is {self.dropout}: it must be from 0 to below 1.")
        if self.dropout and self.target_parameters:
            raise InputError(
                f"lora.dropout is {self.dropout}, but adapting experts (lora.target_parameters) "
                "works only without dropout: set lora.dropout to 0."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DpoConfig:
    """Direct preference optimisation, where method is dpo."""

    beta: float = 0.1
    """How strongly the model is held to the one it started from; larger holds it closer."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """sigmoid: DPO, arXiv:2305.18290; ipo: its bounded form, arXiv:2310.12036."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise InputError(f"dpo.beta is {self.beta}: it must be more than 0.")


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
    """Packs (rows without packing; pairs in DPO) per step and process, one per micro-batch."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment; lower forgets faster, which suits short runs."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass; `auto`: from a billion parameters on."""
    distributed: Literal["ddp", "fsdp2"] = "ddp"
    """With several processes: whole copies of the model, or one that is sharded over them."""
    checkpoint_steps: int = 0
    """Steps between checkpoints; 0 = about every ten minutes."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep while the run lasts; the best one is kept besides."""
    seed: int = 0
    """Seed of initialisation and row order."""
    logging_steps: int = 10
    """Steps between progress lines."""
    tracking: bool = True
    """Log to MLflow: the job's own server on Azure ML, `make track` here."""

    def __post_init__(self) -> None:
        if self.max_steps == 0 or self.max_steps < -1:
            raise InputError(
                f"training.max_steps is {self.max_steps}: give at least 1 step, or -1 for epochs."
            )
        for name in (
            "epochs",
            "learning_rate",
            "max_length",
            "packs_per_step",
            "max_grad_norm",
            "keep_checkpoints",
            "logging_steps",
        ):
            if getattr(self, name) <= 0:
                raise InputError(
                    f"training.{name} is {getattr(self, name)}: it must be more than 0."
                )
        for name in ("warmup", "weight_decay", "checkpoint_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"training.{name} is {getattr(self, name)}: it must be 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """What is measured before, during and after training."""

    rows: int = 64
    """Rows to evaluate on before and after; -1 = all; 0 = none."""
    max_new_tokens: int = 256
    """Longest answer generated for the count of exact answers."""
    batch_size: int = 16
    """Answers generated side by side."""
    samples: int = 5
    """Answers shown side by side, before and after, in the report."""
    steps: int = 0
    """Steps between measurements of the validation loss while training; 0 = none."""
    patience: int = 0
    """Stop after this many measurements without a lower validation loss; 0 = never."""
    keep_best: bool = True
    """With `steps`: the result is the checkpoint of the lowest validation loss, not the last."""

    def __post_init__(self) -> None:
        if self.rows < -1:
            raise InputError(f"evaluation.rows is {self.rows}: give a number of rows, or -1.")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) <= 0:
                raise InputError(
                    f"evaluation.{name} is {getattr(self, name)}: it must be more than 0."
                )
        for name in ("samples", "steps", "patience"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"evaluation.{name} is {getattr(self, name)}: it must be 0 or more."
                )
        if self.patience and not self.steps:
            raise InputError(
                f"evaluation.patience is {self.patience}, but nothing is measured while training: "
                "set evaluation.steps too."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenAIConfig:
    """What only the route azure_openai needs."""

    resource: str = ""
    """Azure OpenAI resource: a name in the workspace's resource group, or an ARM id; empty: the
    only one of that group."""
    training_type: Literal["Standard", "GlobalStandard", "DeveloperTier"] = "Standard"
    """Where it is trained, which sets its price: in the resource's region, anywhere, anywhere when
    there is room."""
    suffix: str = ""
    """Part of the model's name, at most 40 characters; empty: the recipe's name."""
    checkpoint: str = "best"
    """What is deployed: `best` (lowest validation loss), `last`, or a checkpoint's id."""
    sku: Literal["Standard", "GlobalStandard", "DataZoneStandard", "DeveloperTier"] = "Standard"
    """Kind of the deployment, by Azure's name."""
    capacity: int = 1
    """Thousands of tokens a minute that it may take."""
    deploy_to: str = ""
    """ARM id of another resource to serve from, in another region or subscription."""
    deploy_tenant: str = ""
    """Tenant of `deploy_to`, where it is not the one of `resource`."""

    def __post_init__(self) -> None:
        if len(self.suffix) > 40:
            raise InputError(
                f"cloud.openai.suffix has {len(self.suffix)} characters: Azure OpenAI takes 40."
            )
        if self.capacity <= 0:
            raise InputError(f"cloud.openai.capacity is {self.capacity}: it must be more than 0.")
        if self.deploy_tenant and not self.deploy_to:
            raise InputError(
                "cloud.openai.deploy_tenant is set, but not cloud.openai.deploy_to: name the "
                "resource of that tenant too."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudConfig:
    """Where and for how much the recipe runs on Azure; training itself never reads it."""

    route: Literal["command_job", "registry_pipeline", "finetuning_job", "azure_openai"] = (
        "command_job"
    )
    """How Azure fine-tunes: by our own command job, the registry's pipeline, a fine-tuning job of
    the catalog, or Azure OpenAI."""
    model: str = ""
    """What the three other routes start from: a catalog's `registry/name`, `registry/name@label` or
    `registry/name:version`; for azure_openai the base model's name."""
    task: Literal["chat", "text"] = "chat"
    """What the catalog is to train: chat completion, or text generation."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Further training parameters of the route by the service's own names; they go over what is
    made of `training` and over the model's defaults."""
    openai: OpenAIConfig = field(default_factory=OpenAIConfig)
    instance_type: str = "Standard_NC40ads_H100_v5"
    """What it trains on, by Azure's name; for a finetuning_job also `serverless`."""
    nodes: int = 1
    """How many of them."""
    max_hours: float = 4.0
    """The job is ended after this time; nodes x max_hours x price is the most it can cost."""
    compute: str = ""
    """A cluster, made with 0 nodes at rest if it is not there; empty: serverless."""
    spot: bool = False
    """Cheaper machines, which Azure may take away; the job then goes on on another."""
    serve_instance_type: str = "Standard_NC40ads_H100_v5"
    """What the endpoint runs on."""
    serve_instances: int = 1
    """How many of them; each bills from creation to deletion."""
    endpoint: str = ""
    """Name of the endpoint; empty: made of the recipe's name and the workspace's id."""
    expires_hours: float = 24.0
    """The endpoint is tagged to expire after this time; `make cloud-status` says when it has."""
    traffic_steps: list[int] = field(default_factory=lambda: [10, 100])
    """Percent of the traffic that a new deployment gets, step by step; the last one is 100."""
    hub_token_secret: str = ""
    """Name of the secret in the workspace's Key Vault that holds the hub token of the job."""

    def __post_init__(self) -> None:
        for name in ("nodes", "max_hours", "serve_instances", "expires_hours"):
            if getattr(self, name) <= 0:
                raise InputError(f"cloud.{name} is {getattr(self, name)}: it must be more than 0.")
        steps = self.traffic_steps
        if not steps or steps[-1] != 100 or steps != sorted(set(steps)) or steps[0] < 1:
            raise InputError(
                f"cloud.traffic_steps is {steps}: use rising percentages that end with 100."
            )
        if self.route != "command_job" and not self.model:
            raise InputError(
                f"cloud.route is {self.route}, but cloud.model is not set: name the model that the "
                "service starts from."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RehearsalConfig:
    """What `make rehearse` makes of the recipe; nothing else reads it."""

    set: list[str] = field(default_factory=list)
    """Overrides (`section.key=value`) that make it small enough for a laptop."""
    prompt: str = ""
    """What the deployed model is asked; empty: the sample question."""
    answer: str = ""
    """What its answer must contain; empty: any answer will do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One fine-tune."""

    name: str
    """Name of the recipe and of the model that comes of it; names folders under outputs/."""
    method: Literal["sft", "dpo"] = "sft"
    """Learn answers (sft), or to prefer one answer to another (dpo; rows in preference pairs)."""
    tuning: Literal["lora", "qlora", "full"] = "lora"
    """An adapter, an adapter on a base held in 4 bits, or all weights."""
    model: ModelConfig
    data: DataConfig
    lora: LoraConfig = field(default_factory=LoraConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)

    def __post_init__(self) -> None:
        # the name becomes a folder, an image label and an Azure ML asset name
        if not self.name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in self.name):
            raise InputError(f"name is {self.name!r}: use letters, digits, - and _ only.")
        if self.tuning == "qlora" and self.lora.target_parameters:
            raise InputError(
                "tuning is qlora, but experts (lora.target_parameters) are not held in 4 bits: "
                "set tuning to lora."
            )
        if self.method == "dpo" and self.data.form not in ("auto", "preference"):
            raise InputError(
                f"method is dpo, but data.form is {self.data.form}: it learns from preference "
                "pairs; set data.form to preference."
            )


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
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} cannot be read: {error}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"recipe {path} holds {type(values).__name__}, not keys and values.")
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENV_PREFIX):
            keys = name.removeprefix(ENV_PREFIX).lower().split("__")
            override(values, keys, text, f"${name}")
    for line in overrides:
        key, equals, text = line.partition("=")
        if not equals:
            raise InputError(f"{line!r} is no override: write section.key=value.")
        override(values, key.split("."), text, f"override {line!r}")
    recipe = build(Recipe, values, where=str(path), retired=RETIRED)
    assert isinstance(recipe, Recipe)
    return recipe


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every field with the value that the run uses.

    Without `cloud`, `rehearsal` and `data.test`: where a run is made, what it may cost, and what
    only a cloud's pipeline reads, is no part of what is trained.
    """
    values = dataclasses.asdict(recipe)
    del values["cloud"], values["rehearsal"], values["data"]["test"]
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return text

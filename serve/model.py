"""Finds the one model to serve, and reads what its folder says about itself.

    SERVE_MODEL set            that folder, or what lies below it
    else AZUREML_MODEL_DIR     searched downwards for a config.json, the same here and on Azure

A folder is a model when its config.json names a model_type; nothing below a model is searched. An
adapter alone is not a model: training merges it. This loads no weights and knows no torch.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve import weights
from serve.errors import StartupError

HOMEPORT = "homeport.json"
MAX_DEPTH = 6
RESERVED = {"conversation", "messages", "tools", "tokenize", "add_generation_prompt", "return_dict"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefaults:
    """What homeport.json says; training writes it into the merged model's folder."""

    name: str = ""
    run_id: str = ""
    reasoning_language: str = ""
    """Language of the reasoning for requests that name no system text."""
    persona: str = ""
    """System text for requests that bring none."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template that training used, so that serving renders alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A complete model on disk."""

    root: Path
    name: str
    architecture: str
    context: int
    """Most tokens of prompt and answer together."""
    parameters: int
    defaults: ModelDefaults


def find(setting: str, environ: Mapping[str, str] = os.environ) -> Model:
    """The model to serve; StartupError says what was looked at and what was found."""
    if setting:
        root = _explicit(setting)
    elif folder := environ.get("AZUREML_MODEL_DIR", "").strip():
        root = _below(Path(folder), "AZUREML_MODEL_DIR")
    else:
        raise StartupError(
            "no model is named: set SERVE_MODEL to a model folder, or AZUREML_MODEL_DIR to a "
            "folder that holds one."
        )
    return describe(root)


def describe(root: Path) -> Model:
    """Read and check the folder of one model."""
    config = _json_object(root / "config.json")
    if not any(
        (root / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise StartupError(f"{root} has no tokenizer.json; copy the tokenizer beside the weights.")
    inner = config.get("text_config")  # where a model also sees or hears
    text = inner if isinstance(inner, dict) else config
    context = next((text[k] for k in ("max_position_embeddings", "n_positions") if k in text), None)
    if not isinstance(context, int):
        raise StartupError(f"{root / 'config.json'} names no max_position_embeddings, so no limit.")
    defaults = _defaults(root / HOMEPORT)
    return Model(
        root=root,
        name=defaults.name or _folder_name(root),
        architecture=str(config["model_type"]),
        context=context,
        parameters=weights.count_parameters(root),
        defaults=defaults,
    )


def _explicit(setting: str) -> Path:
    if Path(setting).is_dir():
        return _below(Path(setting), "SERVE_MODEL")
    raise StartupError(f"SERVE_MODEL={setting} is not a folder; name one that holds a model.")


def _below(top: Path, variable: str) -> Path:
    """The one model at or below a folder."""
    if not top.is_dir():
        raise StartupError(f"{variable}={top} is not a folder; mount the model there.")
    models: list[Path] = []
    adapters: list[Path] = []
    for folder, subfolders, files in os.walk(top, followlinks=True):
        here = Path(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if "config.json" in files and _is_model(here / "config.json"):
            models.append(here)
            subfolders.clear()
        elif "adapter_config.json" in files:
            adapters.append(here)
        if len(here.relative_to(top).parts) >= MAX_DEPTH:
            subfolders.clear()
    if len(models) == 1:
        return models[0]
    if models:
        listed = ", ".join(str(path) for path in models)
        raise StartupError(
            f"{variable}={top} holds {len(models)} models; set SERVE_MODEL to one: {listed}"
        )
    if adapters:
        raise StartupError(
            f"{adapters[0]} is an adapter without its base model; serve the merged folder, which "
            "`python -m train` makes beside it as merged/."
        )
    seen = ", ".join(sorted(path.name for path in top.iterdir())[:8]) or "nothing"
    raise StartupError(
        f"no model below {variable}={top}: no config.json with a model_type, only {seen}."
    )


def _is_model(config: Path) -> bool:
    try:
        return "model_type" in json.loads(config.read_text())
    except (ValueError, TypeError, OSError):
        return False


def _folder_name(root: Path) -> str:
    """`tiny` for …/tiny, …/tiny/1, …/tiny/1/merged, …/models--owner--tiny/snapshots/<commit>."""
    path = root.absolute()
    if path.parent.name == "snapshots":
        return path.parent.parent.name.split("--")[-1]
    for part in reversed(path.parts):
        if part not in ("merged", "model", "models", "/") and not part.isdigit():
            return part
    return "model"


def _defaults(path: Path) -> ModelDefaults:
    if not path.is_file():
        return ModelDefaults()
    found = _json_object(path)
    texts = ("name", "run_id", "reasoning_language", "persona")
    for name in texts:
        if not isinstance(found.get(name, ""), str):
            raise StartupError(f"{path}: {name} must be a string.")
    kwargs = found.get("chat_template_kwargs", {})
    if not isinstance(kwargs, dict) or RESERVED & kwargs.keys():
        raise StartupError(f"{path}: chat_template_kwargs must be an object of template arguments.")
    return ModelDefaults(chat_template_kwargs=kwargs, **{n: found[n] for n in texts if n in found})


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise StartupError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise StartupError(f"{path} must hold a JSON object.")
    return value

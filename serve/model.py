"""Finds the one model to serve, and reads what its folder says about itself.

    SERVE_MODEL set            that folder, or what lies below it
    else AZUREML_MODEL_DIR     searched downwards for a config.json, the same here and on Azure

A folder is a model when its config.json names a model_type; nothing below a model is searched. A
LoRA adapter is served on its base: either alone, where its adapter_config.json names a base folder
that is here, or beside the base, by SERVE_ADAPTERS. This loads no weights and knows no torch.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve import weights
from serve.errors import StartupError

HOMEPORT = "homeport.json"
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
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
    tokenizer: Path
    """Folder of the tokenizer and chat template: the adapter's own, where it has them."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """Folders of LoRA adapters, by the name that a request may choose."""
    default_adapter: str | None = None
    """For requests that choose none; None is the model itself."""


def find(setting: str, environ: Mapping[str, str] = os.environ, *, adapters: str = "") -> Model:
    """The model to serve; StartupError says what was looked at and what was found."""
    if setting:
        variable, top = "SERVE_MODEL", Path(setting)
    elif folder := environ.get("AZUREML_MODEL_DIR", "").strip():
        variable, top = "AZUREML_MODEL_DIR", Path(folder)
    else:
        raise StartupError(
            "no model is named: set SERVE_MODEL to a model folder, or AZUREML_MODEL_DIR to a "
            "folder that holds one."
        )
    root = _below(top, variable)
    if (root / ADAPTER).is_file() and not (root / "config.json").is_file():
        if adapters:
            raise StartupError(
                f"{root} is an adapter itself; set SERVE_MODEL to its base to serve several."
            )
        return _on_its_base(root)
    model = describe(root)
    named = _named_adapters(adapters, top)
    if model.name in named:
        raise StartupError(
            f"SERVE_ADAPTERS names an adapter {model.name}, which is the model; rename it."
        )
    return replace(model, adapters=named)


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
        tokenizer=root,
    )


def _on_its_base(adapter: Path) -> Model:
    """A lone adapter, which then is what requests get; its base can be asked for by name."""
    named = _json_object(adapter / ADAPTER).get("base_model_name_or_path")
    base = adapter / str(named)  # an absolute one stays what it is
    if not isinstance(named, str) or not (base / "config.json").is_file():
        raise StartupError(
            f"{adapter} is an adapter, and its base {named} is not a folder here; set SERVE_MODEL "
            f"to the base and SERVE_ADAPTERS=name={adapter}, or serve the merged folder, which "
            "`python -m train` makes beside it as merged/."
        )
    _need_safetensors(adapter)
    model = describe(base)
    defaults = _defaults(adapter / HOMEPORT)
    name = defaults.name or _folder_name(adapter)
    own = (adapter / "tokenizer.json").is_file()
    return replace(
        model,
        name=model.name if model.name != name else f"{name}-base",
        defaults=defaults,
        tokenizer=adapter if own else base,
        adapters={name: adapter},
        default_adapter=name,
    )


def _named_adapters(setting: str, top: Path) -> dict[str, Path]:
    """SERVE_ADAPTERS: `name=folder,name=folder`; a relative folder is looked for below `top`."""
    found: dict[str, Path] = {}
    for entry in filter(None, map(str.strip, setting.split(","))):
        name, equals, folder = entry.partition("=")
        path = top / folder
        if not equals or not name or not (path / ADAPTER).is_file():
            raise StartupError(
                f"SERVE_ADAPTERS={entry}: write name=folder, of a folder with {ADAPTER}."
            )
        _need_safetensors(path)
        found[name] = path
    return found


def _need_safetensors(adapter: Path) -> None:
    """StartupError where an adapter has other weights, which may hold code, or none."""
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise StartupError(
            f"{adapter} has no {ADAPTER_WEIGHTS}; only safetensors are loaded, since other "
            "formats can run code."
        )


def _below(top: Path, variable: str) -> Path:
    """The one model at or below a folder; without one, the one adapter."""
    if not top.is_dir():
        raise StartupError(f"{variable}={top} is not a folder; name one that holds a model.")
    models: list[Path] = []
    adapters: list[Path] = []
    for folder, subfolders, files in os.walk(top, followlinks=True):
        here = Path(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if "config.json" in files and _is_model(here / "config.json"):
            models.append(here)
            subfolders.clear()
        elif ADAPTER in files:
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
    if len(adapters) == 1:
        return adapters[0]
    if adapters:
        listed = ", ".join(str(path) for path in adapters)
        raise StartupError(
            f"{variable}={top} holds {len(adapters)} adapters and no model; set SERVE_MODEL to "
            f"their base and SERVE_ADAPTERS to name=folder of each: {listed}"
        )
    if (top / "config.json").is_file():
        _json_object(top / "config.json")  # says so, where it is one that was cut short
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

"""Which model folder to serve: the newest finished run of a recipe, or one that the user names."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.errors import MachineError, UsageError
from scripts.settings import GIGABYTE, OUTPUTS, relative, typed
from train import recipe as recipes
from train.recipe import Recipe

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
BESIDES_WEIGHTS = 1 * GIGABYTE
"""Memory of Python, torch and a few requests, beyond the weights."""


@dataclass(frozen=True, slots=True)
class Servable:
    """A model folder under the name that it is served by."""

    name: str
    folder: Path


def newest(recipe: Recipe) -> Path | None:
    """Folder of the newest run that finished; None where there is none."""
    latest = OUTPUTS / recipe.name / "latest"
    return latest.resolve() if (latest / "metrics.json").is_file() else None


def differs(recipe: Recipe, run: Path) -> bool:
    """Whether what is trained has changed since `run`, not where its files lie or it runs."""
    before = recipes.load(run / "recipe.yaml", environ={})
    return _trained(before) != _trained(recipe)


def _trained(recipe: Recipe) -> Recipe:
    """What a run writes down of a recipe, with file names only: a container sees them elsewhere."""
    data = recipe.data
    return replace(
        recipe,
        cloud=recipes.CloudConfig(),
        rehearsal=recipes.RehearsalConfig(),
        model=replace(recipe.model, base=Path(recipe.model.base).name),
        data=replace(
            data,
            train=Path(data.train).name,
            validation=data.validation and Path(data.validation).name,
            test=None,
        ),
    )


def from_folder(folder: Path) -> Servable:
    """The model in a folder that the user names; UsageError where it is none."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = folder / str(json.loads(adapter.read_text()).get("base_model_name_or_path"))
        if not (base / "config.json").is_file():
            raise UsageError(
                f"MODEL={relative(folder)} is an adapter, and its base {base} is not here; serve "
                f"the merged folder beside it: MODEL={typed(folder.parent / 'merged')}"
            )
    elif not (folder / "config.json").is_file():
        inside = folder / "merged"
        if (inside / "config.json").is_file():  # the folder of a run
            return from_folder(inside)
        raise UsageError(
            f"MODEL={relative(folder)} is no model folder: name a folder with config.json, "
            "tokenizer and safetensors."
        )
    try:
        name = str(json.loads((folder / "homeport.json").read_text())["name"])
    except (OSError, ValueError, KeyError, TypeError):
        name = ""
    # a folder that somebody else made may call itself ../../x, and the mount is named after it
    return Servable(name if NAME.fullmatch(name) else folder.resolve().name, folder.resolve())


def need_memory(folder: Path) -> None:
    """MachineError where the weights will not fit into the memory that is free now."""
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    free = free_memory()
    if free is not None and weights + BESIDES_WEIGHTS > free:
        raise MachineError(
            f"{relative(folder)} has {weights / GIGABYTE:.1f} GB of weights, and this machine "
            f"{free / GIGABYTE:.1f} GB of free memory: close programs, or serve a smaller MODEL."
        )


def free_memory() -> int | None:
    """Bytes that programs can still take; None where the system does not say (not Linux)."""
    found = memory()
    return found[1] if found else None


def memory() -> tuple[int, int] | None:
    """Bytes of memory in all, and those that are free; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    total, free = (int(values[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    return total, free

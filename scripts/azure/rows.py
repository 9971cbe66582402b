"""The rows of a recipe as files that a service of Azure takes, made by train's own data code.

    rows = prepare(recipe, path, "chat")
    rows.train, rows.validation, rows.test     .cache/rows/<recipe>-<hash>/train.jsonl …

`python -m train RECIPE --rows FOLDER --rows-as FORM` makes them, in the train image or without
one, as `make local-train` runs. The folder is named by what goes in, so the same rows are made
once, and `hash` says the same on every machine.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from scripts import local_train
from scripts.errors import CommandError, UsageError
from scripts.settings import CACHE, ROOT, flag_default, relative
from train.recipe import Recipe

Form = Literal["chat", "text", "azure_openai"]
"""chat: `messages`; text: `text` and `ground_truth`; azure_openai: `messages`, after a BOM."""
SUMMARY = "rows.json"
"""Written last by train/export.py, so that it says that all is there."""
CODE = ("train/export.py", "train/data/*.py")
"""What makes the rows; a change of it makes them anew."""


class Runtime(Protocol):
    """The train container, or this machine's own Python."""

    def train(
        self,
        recipe: Path,
        overrides: Sequence[str],
        paths: Mapping[str, Path],
        flags: Sequence[str] = (),
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Files of rows, one JSON object a line."""

    folder: Path
    train: Path
    validation: Path | None
    """For chat and text always there; for azure_openai where the recipe names or holds out some."""
    test: Path | None
    """Where the recipe has data.test."""
    counts: Mapping[str, int]
    """Rows by set: train, validation, test; only those that are there."""
    hash: str
    """SHA-256 (hex, 64) over the files' names and contents: the same rows, the same hash."""


def prepare(
    recipe: Recipe,
    path: Path,
    form: Form,
    *,
    runtime: Runtime | None = None,
    cache: Path = CACHE / "rows",
) -> Rows:
    """Make the files, or find them made before.

    `path` is the recipe's file, named in errors; without `runtime` it is chosen as for a training
    here. UsageError where the rows are not to be had from here, CommandError where train refuses
    them, after its own message.
    """
    files = _files(recipe, path)
    folder = cache / f"{recipe.name}-{_key(recipe, form, files)[:16]}"
    if found := _found(folder):
        return found
    if runtime is None:
        runtime = local_train.choose(flag_default("RUNTIME", "auto"))
    folder.mkdir(parents=True, exist_ok=True)
    # the values as they are now: on the command line they go over the recipe and the environment
    overrides = [f"method={recipe.method}"] + [
        f"data.{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in _data(recipe).items()
        if f"data.{name}" not in files
    ]
    inside = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    flags = ["--rows", str(inside), "--rows-as", form]
    runtime.train(path.resolve(), overrides, {"recipe": path.resolve(), **files}, flags)
    made = _found(folder)
    if made is None:
        raise CommandError(f"the rows of {relative(path)} were not written to {folder}.", 1)
    return made


def _found(folder: Path) -> Rows | None:
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    files = {name: folder / f"{name}.jsonl" for name in summary["counts"]}
    if not all(file.is_file() for file in files.values()):
        return None
    return Rows(
        folder=folder,
        train=files["train"],
        validation=files.get("validation"),
        test=files.get("test"),
        counts=summary["counts"],
        hash=summary["hash"],
    )


def _data(recipe: Recipe) -> dict[str, Any]:
    return dataclasses.asdict(recipe.data)


def _files(recipe: Recipe, path: Path) -> dict[str, Path]:
    """The recipe's rows on this machine, by recipe key; UsageError where one is not here."""
    data = recipe.data
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    found: dict[str, Path] = {}
    for name, spec in named.items():
        if not spec:
            continue
        if spec.startswith(("azureml:", "https://")):
            raise UsageError(
                f"{relative(path)}: data.{name} is {spec}, which only Azure reads; its rows cannot "
                "be checked here, so name a file, a folder or an hf:// dataset."
            )
        if local_train.ELSEWHERE.search(spec) or "#" in spec:
            continue  # of the hub, or many: found where the rows are made
        found[f"data.{name}"] = file = (ROOT / spec).resolve()
        if not file.exists():
            raise UsageError(
                f"{relative(path)}: data.{name} names {file}, which does not exist; correct the "
                "path."
            )
    return found


def _key(recipe: Recipe, form: Form, files: Mapping[str, Path]) -> str:
    """Hash of all that goes in: the recipe's data, the files' contents and the code."""
    whole = hashlib.sha256(json.dumps([form, recipe.method, _data(recipe)]).encode())
    code = sorted(file for pattern in CODE for file in ROOT.glob(pattern))
    for file in [*code, *(inner for place in files.values() for inner in _below(place))]:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.name}\0{content}\n".encode())
    return whole.hexdigest()


def _below(place: Path) -> list[Path]:
    return sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]

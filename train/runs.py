"""The folder of a run: found again after an interruption, held while it is used, published last.

outputs/<recipe>/<run id>/
    recipe.yaml      the resolved recipe: every value that the run uses
    data/            the converted rows and the dataset report
    before.json      the evaluation before training
    checkpoints/     while training lasts; gone when the run is finished
    adapter/         the adapter's weights (not with tuning: full)
    merged/          the model to serve, with homeport.json for the server
    after.json       the evaluation after training
    report.html      the curves, the data and what changed, for people
    metrics.json     all figures; a run that has it is finished
outputs/<recipe>/latest → the newest run that finished and passed its checks, where links can be
"""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

log = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
METRICS = "metrics.json"
LOCK = ".lock"
PLACES = (("model", "base"), ("model", "adapter"), ("data", "train"), ("data", "validation"))
"""Keys of a recipe that may name a path."""


@contextlib.contextmanager
def opened(
    parent: Path, recipe: str, fits: Callable[[Path], bool], *, fresh: bool = False
) -> Iterator[Path]:
    """The folder to work in below `parent`, held against a second process until the end.

    It is that of the newest unfinished run with the same `recipe` (its text) of which `fits` holds,
    else a new one. `fresh` always makes a new one.
    """
    for folder in [] if fresh else unfinished(parent):
        if not _same((folder / RECIPE).read_text(encoding="utf-8"), recipe):
            log.info("run: %s is unfinished, but its recipe differs; not gone on with", folder)
        elif not fits(folder):
            log.info("run: %s is unfinished, but its data has changed since", folder)
        elif (lock := _hold(folder)) is None:
            log.info("run: %s is being worked on by another process", folder)
        else:
            with lock:
                log.info("run: %s (goes on; --fresh would start anew)", folder)
                yield folder
            return
    folder = _new(parent)
    with _hold(folder) or contextlib.nullcontext():
        log.info("run: %s", folder)
        write_text(folder / RECIPE, recipe)
        yield folder


def unfinished(parent: Path) -> list[Path]:
    """Runs without their metrics, the newest first."""
    return [folder for folder in _all(parent) if not (folder / METRICS).exists()]


def finished(parent: Path, recipe: str, fits: Callable[[Path], bool]) -> Path | None:
    """The newest finished run of the same `recipe` (its text) of which `fits` holds."""
    for folder in _all(parent):
        text = (folder / RECIPE).read_text(encoding="utf-8")
        if (folder / METRICS).exists() and _same(text, recipe) and fits(folder):
            return folder
    return None


def _all(parent: Path) -> list[Path]:
    """Folders of runs, the newest first; `latest` is none."""
    found = (path.parent for path in parent.glob(f"*/{RECIPE}"))
    return sorted((folder for folder in found if not folder.is_symlink()), reverse=True)


def _same(one: str, other: str) -> bool:
    """Whether two recipes are the same; in a job of Azure ML but for where its inputs are mounted.

    Each attempt of a job finds them elsewhere. Their contents are the same there: the name of the
    job, and with it of the folder that its attempts share, is made of them.
    """
    if one == other:
        return True
    return "AZUREML_RUN_ID" in os.environ and _without_places(one) == _without_places(other)


def _without_places(text: str) -> Any:
    values = yaml.safe_load(text)
    for section, key in PLACES:
        place = values[section][key]
        if place and place.startswith("/"):
            values[section][key] = Path(place).name
    return values


def _new(parent: Path) -> Path:
    """A fresh folder named by UTC time, so that names sort by age, and four random digits."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    folder = parent / f"{stamp}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    return folder


def _hold(folder: Path) -> contextlib.AbstractContextManager[Any] | None:
    """Hold the folder's lock, which ends with the process; None where another one holds it."""
    file = (folder / LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:  # a mount without locks, such as blob storage: one job works there at a time
        pass
    return file


def write_text(path: Path, text: str) -> None:
    """Write `text` so that the file is either whole or not there."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` so that the file is either whole or not there."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """What write_json wrote, or None where it has not been written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def point_latest(folder: Path) -> None:
    """Let `latest` beside `folder` point to it, in one step; a mount without links goes without."""
    link = folder.parent / f".latest-{folder.name}"
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        os.replace(link, folder.parent / "latest")
    except OSError as error:  # blob storage, for one, has no links
        log.info("latest: %s has no links (%s); the run is %s", folder.parent, error, folder.name)

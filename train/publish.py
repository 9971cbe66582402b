"""The finished model where others take it from, such as a job's output: `FOLDER/merged`.

    publish(run, Path("/mnt/output")) -> Path("/mnt/output/merged")

It is copied whole or not at all: under another name first, which goes away where copying fails. The
run's own folder stays as it is.
"""

import hashlib
import logging
import shutil
from pathlib import Path

from train.errors import InputError, MachineError
from train.runs import read_json

log = logging.getLogger(__name__)

MERGED = "merged"
MANIFEST = "homeport.json"


def published(run: Path, folder: Path) -> bool:
    """Whether `folder` already has the whole model of this very run."""
    source, target = run / MERGED, folder / MERGED
    mine = read_json(source / MANIFEST)
    return mine is not None and read_json(target / MANIFEST) == mine and same(source, target)


def publish(run: Path, folder: Path) -> Path:
    """Copy the merged model of `run` to `folder`/merged, in place of what was there.

    Raises InputError where the run has no model, MachineError where the copy differs in size,
    OSError where the disk is full.
    """
    source, target = run / MERGED, folder / MERGED
    if not source.is_dir():
        raise InputError(f"{source} is not there any more: add --fresh to make it again.")
    if published(run, folder):
        log.info("model: %s (was there already)", target)
        return target
    part = folder / f".{MERGED}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # contents only: a mount of blob storage keeps no times and modes
        shutil.copytree(source, part, copy_function=shutil.copyfile)
        if not same(source, part):
            raise MachineError(f"{part} is not the same as {source}: give the same command again.")
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except BaseException:  # also when a signal ends it: an output is uploaded as it stands
        shutil.rmtree(part, ignore_errors=True)
        raise
    log.info("model: %s", target)
    for weights in sorted(target.rglob("*.safetensors")):
        with weights.open("rb") as file:  # to be compared with what a server loads
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        log.info("model: %s has sha256:%s", weights.name, digest)
    return target


def same(one: Path, other: Path) -> bool:
    """Whether both folders have the same files of the same sizes."""
    return _sizes(one) == _sizes(other)


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}

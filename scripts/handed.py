"""Secrets on their way to training: in a file that training deletes as it reads it.

    with handed(environ) as file:       # .cache/handed-<pid>.json for this user only, or None
        run(…, {VARIABLE: str(file)})

Not in its environment, which `docker inspect` shows for as long as the container exists, and /proc
for as long as the process lives. train/handed.py takes it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from scripts.settings import CACHE

VARIABLE = "HOMEPORT_SECRETS_FILE"
"""What train/handed.py reads."""
NAMES = (
    "HF_TOKEN",
    "MLFLOW_TRACKING_URI",  # may hold a name and a password
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
"""What training needs of the caller's secrets, and who the password belongs to."""


@contextmanager
def handed(environ: Mapping[str, str], folder: Path = CACHE) -> Iterator[Path | None]:
    """The file while training starts; None where nothing is to be handed over."""
    _forget_old(folder)
    secrets = {name: environ[name] for name in NAMES if environ.get(name)}
    if not secrets:
        yield None
        return
    path = folder / f"handed-{os.getpid()}.json"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(secrets, file)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _forget_old(folder: Path) -> None:
    """Remove what a verb left that was killed before training had read it."""
    for path in folder.glob("handed-*.json"):
        pid = path.stem.removeprefix("handed-")
        if pid.isdigit() and int(pid) != os.getpid() and not _alive(int(pid)):
            path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (folder / f"handed-{os.getpid()}.json").unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

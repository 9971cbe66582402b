"""Secrets that a verb hands to training on this machine: read once from a file, which is deleted.

    take(os.environ)        # before anything is downloaded; does nothing where no file is named

The file is one JSON object of variables. They are in the environment of this process from then on,
as its own libraries look for them there, but not in what /proc or `docker inspect` show of it.
"""

import json
from collections.abc import MutableMapping
from pathlib import Path

from train.errors import MachineError

VARIABLE = "HOMEPORT_SECRETS_FILE"


def take(environ: MutableMapping[str, str]) -> None:
    """Set what the file holds, and delete it; MachineError where it cannot be read."""
    name = environ.pop(VARIABLE, "")
    if not name:
        return
    path = Path(name)
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
    except (OSError, ValueError) as error:
        raise MachineError(
            f"the secrets in {VARIABLE}={name} cannot be read ({type(error).__name__}): give the "
            "same command again."
        ) from None
    for variable, value in given.items():
        environ.setdefault(variable, value)

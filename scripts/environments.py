"""Environments of tools that want other packages than the verbs, each made once from its lock."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from scripts.console import say
from scripts.errors import MachineError
from scripts.settings import relative


def ensure(what: str, lock: Path, folder: Path) -> Path:
    """The interpreter of `folder`, which is made unless it was made from this very lock."""
    python = folder / "bin/python"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = folder / ".homeport"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    say(f"installing {relative(lock)} into {relative(folder)}; once")
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*install, "--require-hashes", "-r", str(lock)],
    ):
        if subprocess.run(command, env=quiet, stdout=2).returncode:
            raise MachineError(
                f"{what} could not be installed; the reason stands above. Check the network and "
                "free disk, then run the same command again."
            )
    stamp.write_text(wanted)
    return python

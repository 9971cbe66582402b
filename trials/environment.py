"""A virtual environment of its own below .cache/, made once from a hash-locked file.

python = ensure(Path("trials/fuzz.txt"))
"""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "environments"


class UnavailableError(Exception):
    """It cannot be installed here; the text says why, in one line."""


def ensure(lock: Path) -> Path:
    """The interpreter that has the lock's packages; the first call installs them."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = FOLDER / digest
    python = folder / "bin" / "python"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (folder / "done").is_file():
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes"]
            _run([*install, "--no-deps", "-r", str(lock)])
            (folder / "done").touch()
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise UnavailableError(f"{' '.join(command[1:4])} ended with {done.returncode}: {said}")

"""Environments for tests that are clients, each made once below .cache/ from a locked file."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from tests.tree import ROOT

LOCK = ROOT / "tests" / "clients.txt"
"""What people use against the server."""
NEWEST_SDK = ROOT / "tests" / "newest_sdk.txt"
"""The newest azure-ai-ml; cloud.txt has the one that we use."""


def borrow() -> None:
    """Let this process import those of clients.txt too, where it has no package of that name."""
    (packages,) = Path(python()).parent.parent.glob("lib/python*/site-packages")
    if str(packages) not in sys.path:
        sys.path.append(str(packages))


def python(packages: Path = LOCK) -> str:
    """The interpreter that has the packages of a hash-locked file; the first call installs them."""
    digest = hashlib.sha256(packages.read_bytes()).hexdigest()[:16]
    folder = ROOT / ".cache" / "test-clients" / digest
    found = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").is_file():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [str(found), "-m", "pip", "install", "--quiet", "--require-hashes"]
            subprocess.run([*install, "--no-deps", "-r", str(packages)], check=True)
            (folder / "done").touch()
    return str(found)

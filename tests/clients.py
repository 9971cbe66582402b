"""The environment of tests/clients.txt, made once below .cache/, for tests that are clients."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from tests.tree import ROOT

LOCK = ROOT / "tests" / "clients.txt"


def borrow() -> None:
    """Let this process import them too, where it has no package of that name itself."""
    (packages,) = Path(python()).parent.parent.glob("lib/python*/site-packages")
    if str(packages) not in sys.path:
        sys.path.append(str(packages))


def python() -> str:
    """Its interpreter; the first call installs it."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    folder = ROOT / ".cache" / "test-clients" / digest
    found = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").is_file():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [str(found), "-m", "pip", "install", "--quiet", "--require-hashes"]
            subprocess.run([*install, "--no-deps", "-r", str(LOCK)], check=True)
            (folder / "done").touch()
    return str(found)

"""What the images and the environments are made of: locks, packages, licences, vulnerabilities.

`make sbom` and `make audit` use libraries of their own (supply.txt), in an environment that the
first of them makes; `make upgrade` needs none.
"""

import re
from pathlib import Path

from scripts.environments import ensure
from scripts.settings import CACHE, ROOT

LOCK = ROOT / "supply.txt"
VENV = CACHE / "supply"
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def python() -> Path:
    """The interpreter that has the libraries; the first call installs them."""
    return ensure("what makes SBOM and audit", LOCK, VENV)


def locks(root: Path = ROOT) -> list[Path]:
    """Every lock of a checkout: each stands beside the .in file that it was compiled from."""
    wanted = [path for pattern in ("*.in", "*/*.in") for path in root.glob(pattern)]
    ours = [path for path in wanted if not path.parent.name.startswith(".") or path.parent == root]
    return sorted(lock for path in ours if (lock := path.with_suffix(".txt")).is_file())


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock's text: {name: version}."""
    return dict(PIN.findall(lock))


def hashes(lock: str) -> dict[str, list[str]]:
    """The files that a lock's text accepts for each package: {name==version: [sha256, …]}."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"\n(?=[a-z0-9])", lock):
        if pin := PIN.match(part):
            found[f"{pin[1]}=={pin[2]}"] = HASH.findall(part)
    return found

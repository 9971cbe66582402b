"""Moves the locks of a checkout: all that the .in files leave free, or some packages only.

What an .in file pins by == is a decision and stays, unless that package is named.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.errors import MachineError, UsageError
from scripts.supply import PIN, locks, pins

UV = Path(sys.executable).with_name("uv")
NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:==([A-Za-z0-9.!+_-]+))?")


def move(tree: Path, packages: Sequence[str]) -> None:
    """Compile the locks of `tree` anew; `packages` are `name` or `name==version`, none is all."""
    flags = ["--upgrade"] if not packages else []
    for package in packages:
        name, version = read(package)
        known = any(name in pins(lock.read_text()) for lock in locks(tree))
        if decided := [path for path in short_files(tree) if _pinned(path, name)]:
            version = version or newest(name)
            for path in decided:
                _pin(path, name, version)
        elif not known:
            raise UsageError(f"PACKAGES names {name}, which is in no lock and in no .in file.")
        flags += ["--upgrade-package", f"{name}=={version}" if version else name]
    done = subprocess.run(
        [str(tree / "images/lock"), *flags], cwd=tree, env={**os.environ, "UV": str(UV)}, stdout=2
    )
    if done.returncode:
        raise MachineError(
            "the locks cannot be moved: these versions do not fit together, or the package index "
            "does not answer; uv's own words stand above. Nothing was changed."
        )


def read(package: str) -> tuple[str, str]:
    """Name and version of a word of PACKAGES."""
    match = NAMED.fullmatch(package)
    if not match:
        raise UsageError(f"PACKAGES has {package!r}: write name or name==version.")
    return re.sub(r"[-_.]+", "-", match[1]).lower(), match[2] or ""


def short_files(tree: Path) -> list[Path]:
    """The .in files, and the Dockerfile, which names torch's version once more."""
    return [*(lock.with_suffix(".in") for lock in locks(tree)), tree / "images/Dockerfile"]


def decided(tree: Path) -> dict[str, str]:
    """What the .in files pin: {name: version}."""
    found = "\n".join(lock.with_suffix(".in").read_text() for lock in locks(tree))
    return pins(re.sub(r"\[[\w,-]+\]==", "==", found))


def newest(name: str) -> str:
    """The newest version of a package for the images' Python."""
    command = [str(UV), "pip", "compile", "--quiet", "--no-header", "--no-deps", "--no-annotate"]
    done = subprocess.run(
        [*command, "--python-version", "3.11", "--python-platform", "linux", "-"],
        input=name,
        capture_output=True,
        text=True,
    )
    found = PIN.search(done.stdout)
    if done.returncode or not found:
        said = " ".join(done.stderr.split())[-300:]
        raise MachineError(f"the newest version of {name} cannot be found: {said}")
    return found[2]


def _pattern(path: Path, name: str) -> re.Pattern[str]:
    if path.name == "Dockerfile":
        return re.compile(rf"(?m)^(ARG {re.escape(name.upper())}_VERSION=)\S+")
    return re.compile(rf"(?m)^({re.escape(name)}(?:\[[\w,-]+\])?==)\S+")


def _pinned(path: Path, name: str) -> bool:
    return path.is_file() and bool(_pattern(path, name).search(path.read_text()))


def _pin(path: Path, name: str, version: str) -> None:
    pattern = _pattern(path, name)
    path.write_text(pattern.sub(lambda found: found[1] + version, path.read_text()))

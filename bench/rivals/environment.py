"""A virtual environment of a rival's own, which takes torch from this project's.

    python = ensure(cache / "bench-x-1.0", "x==1.0", excluded=("torch",))

So both compute with the same kernels, and gigabytes are not installed twice.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path


class UnavailableError(Exception):
    """It cannot be installed here; the text says why, in one line."""


def ensure(folder: Path, requirement: str, *, excluded: Sequence[str]) -> Path:
    """Its interpreter; made in `folder` unless it is there, without the `excluded` packages."""
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = str(Path(sys.executable).with_name("uv"))
    run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
    absent = folder / "excluded.txt"
    absent.write_text("\n".join(excluded) + "\n", encoding="utf-8")
    install = ["pip", "install", "--quiet", "--python", str(python), "--excludes", str(absent)]
    run([uv, *install, requirement])
    # read last, so that what was installed here goes before
    here = sysconfig.get_path("purelib") + "\n"
    (packages(folder) / "homeport.pth").write_text(here, encoding="utf-8")
    (folder / "ready").touch()
    return python


def packages(folder: Path) -> Path:
    """Where the environment in `folder` has its packages."""
    return folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)


def run(command: list[str]) -> None:
    """UnavailableError where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UnavailableError(f"{command[0]} is not installed") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise UnavailableError(f"{' '.join(command[1:3])} ended with {done.returncode}: {said}")

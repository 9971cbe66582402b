"""Makes the virtual environment of the verbs, and on demand all that the host runtime needs.

    python3 -m scripts.setup              .venv with host.txt
    python3 -m scripts.setup --runtime    also torch, images/train.txt and images/serve.txt
    python3 -m scripts.setup --cloud      also cloud.txt, the Azure SDK

Runs on any Python 3.11 or newer without a package. What is installed already, by the hash of its
lock, is left alone, so a second run takes no time. HOMEPORT_VENV moves the environment;
HOMEPORT_TORCH_INDEX names where torch comes from, as for the images.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from scripts.console import say
from scripts.errors import MachineError, VerbError
from scripts.runtime import choose_device
from scripts.settings import GIGABYTE, ROOT

OLDEST = (3, 11)
TORCH_INDEXES = {
    "cpu": "https://download.pytorch.org/whl/cpu",
    "cuda": "https://download.pytorch.org/whl/cu126",
}
NEEDED_BYTES = {"cpu": 4 * GIGABYTE, "cuda": 12 * GIGABYTE}


def venv() -> Path:
    """Folder of the virtual environment."""
    return Path(os.environ.get("HOMEPORT_VENV") or ROOT / ".venv").absolute()


def python() -> Path:
    return venv() / "bin" / "python"


def ensure_verbs() -> None:
    """The environment that the verbs run in: small, no torch."""
    if sys.version_info < OLDEST:
        raise MachineError(
            f"Python {platform.python_version()} is too old, 3.11 or newer is needed: install it "
            "and name it, as in `make PYTHON=python3.12 …`."
        )
    for folder in (ROOT, venv()):
        if os.pathsep in str(folder):
            raise MachineError(
                f"{folder} has a {os.pathsep!r} in its name, which no search path of Python's or "
                "the shell's can hold: move it."
            )
    if not python().is_file():
        say(f"setup: making {venv()} with Python {platform.python_version()}")
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(venv())], capture_output=True, text=True
        )
        if made.returncode:
            shutil.rmtree(venv(), ignore_errors=True)
            reason = (made.stdout + made.stderr).strip().splitlines()
            raise MachineError(
                f"{sys.executable} -m venv failed ({reason[-1] if reason else made.returncode}); "
                "on Debian and Ubuntu: apt install python3-venv."
            )
    install("host", [ROOT / "host.txt"])


def ensure_runtime(device: str) -> None:
    """torch and both images' packages, so that train and serve run without a container."""
    ensure_verbs()
    version = torch_version()
    if not is_installed("torch", f"{version} {device}"):
        free = shutil.disk_usage(venv()).free
        if free < NEEDED_BYTES[device]:
            raise MachineError(
                f"{venv()} needs {NEEDED_BYTES[device] / GIGABYTE:.0f} GB free on its disk and has "
                f"{free / GIGABYTE:.1f}; free some, or set HOMEPORT_VENV to a folder elsewhere."
            )
        install("torch-needs", [ROOT / "images/torch.txt"])
        index, reason = torch_index(device, os.environ)
        say(f"setup: torch {version} for {device} from {index or 'the package index'} ({reason})")
        pip(["--index-url", index] if index else [], f"torch=={version}")
        stamp("torch").write_text(f"{version} {device}")
    install("runtime", [ROOT / "images/train.txt", ROOT / "images/serve.txt"])
    if device == "cpu":
        install("openvino", [ROOT / "images/openvino.txt"])


def ensure_cloud() -> None:
    """The Azure SDK, and what the local Azure needs where it runs without a container."""
    ensure_verbs()
    install("cloud", [ROOT / "cloud.txt", ROOT / "images/emulator.txt"])


def torch_version() -> str:
    """The version that the images install too."""
    found = re.search(
        r"^ARG TORCH_VERSION=(\S+)", (ROOT / "images/Dockerfile").read_text(), re.MULTILINE
    )
    if not found:
        raise MachineError(
            "images/Dockerfile names no TORCH_VERSION: git checkout images/Dockerfile."
        )
    return found.group(1)


def torch_index(device: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The index to take torch from ("" for pip's own settings), and why."""
    asked = environ.get("HOMEPORT_TORCH_INDEX", "")
    if asked:
        return ("" if asked == "pip" else asked), "HOMEPORT_TORCH_INDEX"
    if sys.platform == "darwin":
        return "", "its macOS build is the CPU build"
    index = TORCH_INDEXES[device]
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=10):  # noqa: S310 - https, above
            return index, f"{device} build"
    except OSError:
        return "", f"{index} cannot be reached"


def install(name: str, locks: list[Path]) -> None:
    """Install locks with their hashes, unless the same content was installed before."""
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    if is_installed(name, digest):
        return
    say(f"setup: installing {', '.join(str(lock.relative_to(ROOT)) for lock in locks)}")
    for lock in locks:
        pip(["--require-hashes", "--no-deps"], "-r", str(lock))
    stamp(name).write_text(digest)


def pip(options: list[str], *what: str) -> None:
    done = subprocess.run(
        [str(python()), "-m", "pip", "install", "--quiet", *options, *what],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    if done.returncode:
        raise MachineError(
            f"pip could not install {' '.join(what)}; its own message stands above. "
            "Check the network and free disk, then run the same command again."
        )


def stamp(name: str) -> Path:
    return venv() / f".homeport-{name}"


def is_installed(name: str, content: str) -> bool:
    return stamp(name).is_file() and stamp(name).read_text() == content


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m scripts.setup", description="Make the virtual environment in .venv."
    )
    parser.add_argument(
        "--runtime", action="store_true", help="also install what training and serving need"
    )
    parser.add_argument("--cloud", action="store_true", help="also install the Azure SDK")
    arguments = parser.parse_args()
    try:
        if arguments.runtime:
            ensure_runtime(choose_device(os.environ, "host").value)
        if arguments.cloud:
            ensure_cloud()
        ensure_verbs()
    except VerbError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

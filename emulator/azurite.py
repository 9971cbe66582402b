"""Azurite, Microsoft's storage emulator, as a process of ours with TLS and a key of its own.

Which Azurite: the executable $HOMEPORT_AZURITE, else the one that `ensure` installs by npm from
images/azurite/package-lock.json. Each start begins empty.
"""

import base64
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from emulator.certificates import Certificates

LOCK = Path(__file__).parent.parent / "images" / "azurite"
SECONDS = 60
"""How long a start may take."""
ENDS_WITH_US = "--import=data:text/javascript,process.stdin.on('end',()=>process.exit()).resume()"
"""Node ends when the pipe to it does: a parent that was killed leaves no Azurite behind."""
REASON = re.compile(r"^npm error (?!(code|syscall|errno|path|dest) )\S.*", re.MULTILINE)
"""Where npm says why, between codes and its advice."""


class AzuriteError(Exception):
    """Azurite cannot be had or started; one sentence."""


def find(folder: Path) -> Path:
    """The executable of Azurite, installed below `folder` if need be."""
    given = os.environ.get("HOMEPORT_AZURITE")
    if given:
        if not Path(given).is_file():
            raise AzuriteError(f"HOMEPORT_AZURITE names {given}, which is no file.")
        return Path(given)
    return ensure(folder)


def ensure(folder: Path) -> Path:
    """Install the locked Azurite into `folder`, unless it is there; its executable."""
    if not (shutil.which("node") and shutil.which("npm")):
        raise AzuriteError("Azurite needs Node.js 20 or newer with npm: install it, or use Docker.")
    digest = hashlib.sha256((LOCK / "package-lock.json").read_bytes()).hexdigest()
    found, done = folder / "node_modules" / ".bin" / "azurite-blob", folder / "done"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found.is_file() and done.is_file() and done.read_text() == digest:
            return found
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / name, folder / name)
        print(f"setup: installing Azurite by npm into {folder}, once", file=sys.stderr)  # noqa: T201
        install = ["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]
        # npm has the lock too: it goes on for a while where we are killed
        ran = subprocess.run(
            install, cwd=folder, capture_output=True, text=True, pass_fds=[lock.fileno()]
        )
        if ran.returncode:
            reason = REASON.search(ran.stderr)
            last = reason[0] if reason else " ".join(ran.stderr.strip().splitlines()[-1:])
            raise AzuriteError(f"npm could not install Azurite into {folder}: {last}")
        done.write_text(digest)
    return found


@dataclass(slots=True)
class Azurite:
    """One Azurite that runs."""

    url: str
    """`https://127.0.0.1:PORT`."""
    key: str
    """The account's key."""
    _process: subprocess.Popen[bytes]

    def close(self) -> None:
        """End it at once: told by a signal, it waits for its clients to hang up."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start(executable: Path, folder: Path, account: str, files: Certificates) -> Azurite:
    """Run it for `account` with its bytes in `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    command = [
        str(executable),
        *("--blobHost", "127.0.0.1", "--blobPort", "0"),
        *("--cert", str(files.server), "--key", str(files.key)),
        *("--location", str(folder / "bytes")),
        # bearer tokens of identity-based datastores; newer clients than it knows; no telemetry
        *("--oauth", "basic", "--skipApiVersionCheck", "--disableTelemetry", "--silent"),
    ]
    environment = {
        **os.environ,
        "AZURITE_ACCOUNTS": f"{account}:{key}",  # a command line can be read by all
        "NODE_OPTIONS": ENDS_WITH_US,
    }
    log = folder / "azurite.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output
        )
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        said = log.read_text(errors="replace")
        if found := re.search(r"successfully listens on https?://127\.0\.0\.1:(\d+)", said):
            return Azurite(f"https://127.0.0.1:{found[1]}", key, process)
        time.sleep(0.05)
    process.kill()
    process.wait()
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise AzuriteError(f"Azurite did not start: {' '.join(last) or 'it said nothing'} ({log})")

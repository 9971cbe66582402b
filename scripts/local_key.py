"""Print the local server's key on stdout and nowhere else, for a request made by hand.

It is made once, by the first `make local-serve KEY=1`, and kept in .cache/serve-key for this user
alone. The server reads it from there; whoever asks sends it. A new one: remove that file, and serve
again.
"""

import argparse
import os
import secrets
from pathlib import Path

from scripts.console import run_verb
from scripts.errors import MachineError, UsageError
from scripts.settings import CACHE

KEY_FILE = CACHE / "serve-key"
BYTES = 32
SECONDS = 10


def main() -> None:
    argparse.ArgumentParser(
        prog="make local-key", description="Print the local server's key (make -s local-key)."
    ).parse_args()
    print(read())


def make() -> Path:
    """The key's file; makes it where there is none."""
    if not KEY_FILE.is_file():
        new = KEY_FILE.with_name(f"{KEY_FILE.name}.{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{secrets.token_urlsafe(BYTES)}\n")
        new.replace(KEY_FILE)
    KEY_FILE.chmod(0o600)
    return KEY_FILE


def read() -> str:
    """The key; UsageError where none was made."""
    try:
        return KEY_FILE.read_text().strip()
    except FileNotFoundError:
        raise UsageError("no key has been made yet; next: make local-serve KEY=1") from None


def headers(port: int) -> dict[str, str]:
    """What a request to the server on `port` must carry: the key where it asks for one.

    It is sent to servers of this checkout alone, since any program may listen on a port.
    """
    import requests

    try:
        asks = requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=SECONDS)
    except requests.RequestException:
        return {}  # the question itself will say what is wrong
    if asks.status_code != 401:
        return {}
    from scripts.local_stop import runtimes

    if not any(port in runtime.running() for runtime in runtimes()):
        raise MachineError(
            f"the server on port {port} asks for a key, and is not one of this checkout: send "
            "its own key, by curl"
        )
    return {"Authorization": f"Bearer {read()}"}


if __name__ == "__main__":
    run_verb(main)

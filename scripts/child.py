"""A child process that is never abandoned: signals are passed on, and its end is waited for.

Training writes a checkpoint when it is told to stop. A verb that died of Ctrl-C first would take
that time away from it.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_to_end(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    container: str | None = None,
) -> int:
    """Run `command` with its output on stderr; its exit code, 128 + number if a signal ended it.

    `container` is what the command runs, if it runs one: then the signal is for that, since
    `docker compose run` would go away and leave it running.
    """
    early: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        elif child.poll() is None and not (container and _signal(container, number)):
            os.killpg(child.pid, number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        # a group of its own: a terminal's Ctrl-C would reach it twice, and twice means at once
        child = subprocess.Popen(command, cwd=cwd, env=env, stdout=2, start_new_session=True)
        for number in early:
            os.killpg(child.pid, number)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _signal(container: str, number: int) -> bool:
    """Send the signal to a container; False where it does not run (yet)."""
    command = ["docker", "kill", "--signal", str(number), container]
    return not subprocess.run(command, capture_output=True).returncode

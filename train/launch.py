"""One process per GPU, when the machine has several and nobody started them yet.

Azure ML starts the processes itself; on a workstation `python -m train` does, by starting itself
once more for every GPU. Signals are passed on, and the first failure ends them all with its code.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from train.errors import Interrupted

log = logging.getLogger(__name__)


def needed() -> int:
    """How many processes to start: 0 where this one is all, or is one of several already."""
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        return 0
    import torch

    count = torch.cuda.device_count()
    return count if count > 1 else 0


def launch(arguments: Sequence[str], count: int) -> int:
    """Run `python -m train ARGUMENTS` `count` times as one distributed training; its exit code."""
    log.info("processes: %d (one per GPU of this machine)", count)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    children = [
        subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "train", *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            # the folder of the run is said once
            stdout=None if rank == 0 else subprocess.DEVNULL,
        )
        for rank in range(count)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    code = 0
    while any(child.poll() is None for child in children):
        time.sleep(0.2)
        failed = [child.returncode for child in children if child.returncode]
        if failed and not code:
            code = failed[0]
            if code != Interrupted.exit_code:  # else each is about to end by itself
                for child in children:
                    child.terminate()
    code = code or max(child.returncode for child in children)
    return code if code >= 0 else 128 - code  # ended by a signal

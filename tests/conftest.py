"""Tests never ask a hub: what is not made here is not there."""

import os
import signal
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes of many threads each, on the same cores, wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's shell starts what it puts in the background deaf to Ctrl-C; tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

CLOUD = ("tests/e2e/test_cloud.py", "tests/e2e/test_rehearsal.py")
"""Rehearse the cloud; in Docker a local Azure's ports are fixed."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """--dist loadgroup: end-to-end tests in two processes, those of CLOUD and all others."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # read where it is installed
        def _split_scope(self, nodeid: str) -> str:
            return "cloud" if nodeid.startswith(CLOUD) else "all else"

    return Scheduling(config, log)

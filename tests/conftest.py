"""Tests never ask a hub: what is not made here is not there."""

import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes of many threads each, on the same cores, wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's shell starts what it puts in the background deaf to Ctrl-C; tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

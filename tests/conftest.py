"""Tests never ask a hub: what is not made here is not there."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes of many threads each, on the same cores, wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

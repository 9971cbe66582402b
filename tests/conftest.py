"""Tests never ask a hub: what is not made here is not there."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

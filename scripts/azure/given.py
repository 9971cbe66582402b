"""What the cloud verbs are given beside their recipe's path: overrides, endpoint, way to push."""

from scripts.errors import UsageError
from scripts.local_train import read_set

PUSH = ("here", "build")
"""Who builds and pushes an image: the engine here, or the workspace's registry."""


def overrides(text: str, endpoint: str = "") -> list[str]:
    """The recipe's overrides of SET, and of ENDPOINT; UsageError where quotes are left open."""
    found = read_set(text)
    return [*found, f"cloud.endpoint={endpoint}"] if endpoint else found


def check_push(way: str) -> None:
    """UsageError where PUSH is neither `here` nor `build`."""
    if way not in PUSH:
        raise UsageError(f"PUSH is {way!r}: use {' or '.join(PUSH)}.")

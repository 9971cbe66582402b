"""Waits for what threads and processes do meanwhile, so that no test counts on their speed."""

import time
from collections.abc import Callable


def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends, f"it has not come to pass within {seconds:g} s"
        time.sleep(0.02)

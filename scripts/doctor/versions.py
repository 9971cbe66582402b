"""Versions as tools print them."""

import re
from collections.abc import Sequence


def parts(text: str) -> tuple[int, ...]:
    """`v2.40.3+ds1` is (2, 40, 3); nothing where there is no number."""
    found = re.search(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def at_least(text: str, oldest: Sequence[int]) -> bool:
    return parts(text) >= tuple(oldest)

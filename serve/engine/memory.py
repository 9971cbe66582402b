"""How much memory is left, for the engines that size their cache by it."""

from pathlib import Path

import psutil  # type: ignore[import-untyped]  # shipped without types

CGROUP = Path("/sys/fs/cgroup")


def free() -> int:
    """Bytes of the machine's memory; in a container, what its limit leaves of that."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text())
        return min(available, limit - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return available

"""Memory for training the embedded model; a larger one's need is local-check's business."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here
from scripts.local_train import TRAINING_BYTES
from scripts.settings import GIGABYTE


def check(here: Here) -> Iterator[Finding]:
    found = here.memory()
    if found is None:
        yield Finding(
            check="memory", severity="skipped", sentence="this system does not say how much is free"
        )
        return
    total, free = found
    text = f"{free / GIGABYTE:.1f} of {total / GIGABYTE:.1f} GB of memory are free"
    if free < TRAINING_BYTES:
        yield Finding(
            check="memory",
            severity="error",
            sentence=f"{text}, training takes {TRAINING_BYTES / GIGABYTE:.0f} GB at the least",
            remedy="close programs" + _limit(here),
        )
    else:
        yield Finding(check="memory", severity="ok", sentence=text)


def _limit(here: Here) -> str:
    if here.in_wsl:
        return ", or raise memory= below [wsl2] in %UserProfile%\\.wslconfig and wsl --shutdown"
    if here.system == "Darwin":
        return ", or raise the memory limit in Docker Desktop's settings"
    return ""

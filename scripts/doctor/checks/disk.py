"""Room for the images or the virtual environment, and for a run."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here
from scripts.settings import GIGABYTE

NEEDED = 8 * GIGABYTE
"""Both CPU images with their layers (5 GB), a base model, a run and its checkpoints."""
LEAST = 3 * GIGABYTE
"""Below this not even the virtual environment fits."""


def check(here: Here) -> Iterator[Finding]:
    free = here.free_disk(here.root)
    text = f"{free / GIGABYTE:.1f} GB free on the disk of {here.root}"
    remedy = "free some, for instance by docker system prune, or move outputs/ to another disk"
    if free < LEAST:
        yield Finding(
            check="disk", severity="error", sentence=f"{text}, 8 GB are needed", remedy=remedy
        )
    elif free < NEEDED:
        yield Finding(
            check="disk",
            severity="warning",
            sentence=f"{text}, 8 GB are needed with the images",
            remedy=remedy,
        )
    else:
        yield Finding(check="disk", severity="ok", sentence=text)

"""The Python that the verbs run on."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here
from scripts.setup import OLDEST


def check(here: Here) -> Iterator[Finding]:
    version = ".".join(map(str, here.python))
    if here.python[:2] < OLDEST:
        yield Finding(
            check="python",
            severity="error",
            sentence=f"Python {version} is too old, 3.11 or newer is needed",
            remedy="make clean, then make PYTHON=python3.12 doctor",
        )
    else:
        yield Finding(check="python", severity="ok", sentence=f"Python {version}")

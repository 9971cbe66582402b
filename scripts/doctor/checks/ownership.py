"""Files of outputs/ and .cache/ that belong to somebody else, as a container run as root leaves."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here


def check(here: Here) -> Iterator[Finding]:
    if here.user == 0:
        yield Finding(
            check="ownership", severity="skipped", sentence="you are root and may write everywhere"
        )
        return
    foreign = [path for path, owner in here.files() if owner != here.user]
    if not foreign:
        yield Finding(
            check="ownership", severity="ok", sentence="all of outputs/ and .cache/ is yours"
        )
        return
    yield Finding(
        check="ownership",
        severity="error",
        sentence=f"{len(foreign)} files are not yours, the first is {foreign[0]}",
        remedy='sudo chown -R "$(id -u):$(id -g)" outputs .cache',
    )

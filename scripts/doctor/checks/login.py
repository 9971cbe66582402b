"""Who you are to Azure, and which workspace the cloud verbs would use."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here


def check(here: Here) -> Iterator[Finding]:
    cloud, why = here.account
    if cloud is None:
        asked = "no workspace is set" not in why
        yield Finding(
            check="azure",
            severity="error" if asked else "skipped",
            sentence=why,
            remedy="az login, and the three settings of .env" if asked else "",
        )
        return
    place = cloud.workspace
    label = f" ({cloud.label()})" if cloud.label() else ""
    yield Finding(
        check="azure",
        severity="ok",
        sentence=f"{cloud.owner} in {place.name}, {place.location}{label}",
    )

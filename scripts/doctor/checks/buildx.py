"""BuildKit's client, which builds the images."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here


def check(here: Here) -> Iterator[Finding]:
    code, said = here.run("docker", "buildx", "version")
    if code == 127:
        yield Finding(check="buildx", severity="skipped", sentence="there is no Docker")
    elif code:
        yield Finding(
            check="buildx",
            severity="error",
            sentence="Docker has no buildx, which builds the images",
            remedy="install docker-buildx-plugin (Docker's packages) or docker-buildx (Ubuntu's)",
        )
    else:
        yield Finding(check="buildx", severity="ok", sentence=said.splitlines()[0])

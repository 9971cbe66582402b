"""Compose v2."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here
from scripts.doctor.versions import at_least

OLDEST = (2, 17)
"""The first whose `up --wait` ends with an error when a container dies."""


def check(here: Here) -> Iterator[Finding]:
    code, said = here.run("docker", "compose", "version", "--short")
    if code == 127:
        yield Finding(check="compose", severity="skipped", sentence="there is no Docker")
    elif code or not said:
        yield Finding(
            check="compose",
            severity="error",
            sentence="Docker has no Compose v2",
            remedy="install docker-compose-plugin (Docker's) or docker-compose-v2 (Ubuntu's)",
        )
    elif not at_least(said, OLDEST):
        yield Finding(
            check="compose",
            severity="error",
            sentence=f"Compose {said} is too old, 2.17 is needed",
            remedy="update the docker-compose-plugin package, or Docker Desktop",
        )
    else:
        yield Finding(check="compose", severity="ok", sentence=f"Compose {said}")

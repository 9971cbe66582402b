"""The Docker engine, and how old it is."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here
from scripts.doctor.versions import at_least

OLDEST = (20, 10)
"""The first whose BuildKit has what images/Dockerfile uses (bind and cache mounts)."""


def check(here: Here) -> Iterator[Finding]:
    code, said = here.run("docker", "version", "--format", "{{.Server.Version}}")
    if code == 127:
        yield Finding(
            check="docker engine",
            severity="warning",
            sentence="Docker is not installed, so everything runs in a virtual environment",
            remedy="install Docker Engine or Docker Desktop (https://docs.docker.com/engine/install)",
        )
    elif code == 0 and at_least(said, OLDEST):
        yield Finding(check="docker engine", severity="ok", sentence=f"Docker {said}")
    elif code == 0:
        yield Finding(
            check="docker engine",
            severity="error",
            sentence=f"Docker {said} is too old for the images' Dockerfile, 20.10 is needed",
            remedy="update Docker, or use RUNTIME=host",
        )
    else:
        yield Finding(
            check="docker engine", severity="error", sentence=_why(said), remedy=_mend(here, said)
        )


def _why(said: str) -> str:
    if "permission denied" in said.lower():
        return "the Docker engine runs, but you may not use it"
    last = said.splitlines()[-1] if said else "it says nothing"
    return f"the Docker engine does not answer ({last})"


def _mend(here: Here, said: str) -> str:
    if "permission denied" in said.lower():
        return "sudo usermod -aG docker $USER, then log in anew"
    if here.system == "Darwin" or here.in_wsl:
        return "start Docker Desktop" + (
            " and turn on its WSL integration for this distribution" if here.in_wsl else ""
        )
    return "sudo systemctl start docker"

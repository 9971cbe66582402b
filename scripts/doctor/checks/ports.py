"""The ports that the verbs listen on, all on this machine's own address."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here

PORTS = {
    "PORT": (5001, "local-serve"),
    "TRACK_PORT": (5050, "track"),
    "REHEARSAL_PORT": (8081, "rehearse"),
}


def check(here: Here) -> Iterator[Finding]:
    free = []
    for variable, (default, verb) in PORTS.items():
        given = here.environ.get(variable, "")
        port = int(given) if given.isdigit() else default
        if here.port_is_free(port):
            free.append(str(port))
            continue
        ours = _served(here, port)
        yield Finding(
            check="ports",
            severity="ok" if ours else "warning",
            sentence=f"port {port} is in use{' by our own server' if ours else ''}",
            remedy="" if ours else f"make {verb} {variable}={port + 1}",
        )
    if free:
        yield Finding(check="ports", severity="ok", sentence=f"free: {', '.join(free)}")


def _served(here: Here, port: int) -> bool:
    if (here.root / ".cache" / f"serve-{port}.json").is_file():
        return True
    code, said = here.run("docker", "ps", "--quiet", "--filter", f"publish={port}")
    return not code and bool(said)

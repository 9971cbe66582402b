"""What RUNTIME=auto would take, and why."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here
from scripts.runtime import choose_device, choose_runtime


def check(here: Here) -> Iterator[Finding]:
    def probe(command: list[str]) -> tuple[int, str]:
        return here.run(*command)

    runtime = choose_runtime(here.environ.get("RUNTIME", "auto"), probe)
    device = choose_device(here.environ, runtime.value, probe)
    yield Finding(
        check="runtime", severity="ok", sentence=f"the verbs take {runtime}, and {device}"
    )

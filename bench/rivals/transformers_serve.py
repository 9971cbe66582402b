"""`transformers serve` with continuous batching, in a virtual environment of its own.

Its web framework needs another opentelemetry than the Azure ML inference server does. torch it gets
from this project's environment, so that both compute with the same kernels; transformers is of the
version that this project has.
"""

from importlib.metadata import version
from pathlib import Path

from bench.rivals import environment


def prepare(cache: Path) -> list[str] | str:
    """Install it below `cache` unless it is there (200 MB): its interpreter, or why not."""
    wanted = version("transformers")
    folder = (cache / f"bench-transformers-serve-{wanted}").absolute()
    try:
        return [
            str(environment.ensure(folder, f"transformers[serving]=={wanted}", excluded=("torch",)))
        ]
    except environment.UnavailableError as error:
        return str(error)


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

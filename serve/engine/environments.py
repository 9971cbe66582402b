"""Which Python each engine runs under, and whether it is installed.

vLLM holds torch and transformers at versions of its own, so it lives in a virtual environment below
the server's, the same in the image and on a host: <prefix>/engines/vllm. The others share the
server's packages, though not its process.
"""

import importlib.util
import sys
from pathlib import Path

PACKAGES = {"transformers": "transformers", "openvino": "openvino_genai"}
"""Of the engines in the server's own environment."""


def python(engine: str) -> Path:
    """The interpreter of an engine, whether it is there or not."""
    if engine in PACKAGES:
        return Path(sys.executable)
    return Path(sys.prefix) / "engines" / engine / "bin" / "python"


def installed(engine: str) -> bool:
    if engine in PACKAGES:
        return importlib.util.find_spec(PACKAGES[engine]) is not None
    return python(engine).is_file()

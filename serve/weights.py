"""What a folder's safetensors files hold, from their headers alone: complete or not, and how large.

A header is 8 bytes of length, then JSON with each tensor's shape and byte range; so a copy that
was cut short is found in milliseconds, before minutes of loading. It reads no tensor and needs no
torch.
"""

import json
import math
import os
from pathlib import Path

from serve.errors import StartupError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER = 100 * 1024 * 1024


def count_parameters(root: Path) -> int:
    """Number of stored values in a whole model; StartupError for absent files or cut ones."""
    return sum(_shard_parameters(path) for path in _shards(root))


def _shards(root: Path) -> list[Path]:
    if (root / SINGLE).is_file():
        return [root / SINGLE]
    if (root / INDEX).is_file():
        try:
            found = json.loads((root / INDEX).read_text())["weight_map"].values()
            names = sorted({str(name) for name in found})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StartupError(
                f"{root / INDEX} is not a safetensors index; copy it again."
            ) from error
        for name in names:
            if Path(name).name != name:
                raise StartupError(
                    f"{root / INDEX} names {name}, which is no file beside it; copy it again."
                )
        absent = [name for name in names if not (root / name).is_file()]
        if absent:
            count = f"{len(absent)} of the {len(names)} weight files that its index names"
            raise StartupError(f"{root} is half a model: {count} are absent, first {absent[0]}.")
        return [root / name for name in names]
    others = sorted(
        p.name for p in root.iterdir() if p.suffix in (".bin", ".pt", ".safetensors", ".gguf")
    )
    what = f"only {', '.join(others[:3])}" if others else "no weights"
    raise StartupError(f"{root} has a config.json but {what}; it needs {SINGLE} or {INDEX}.")


def _shard_parameters(path: Path) -> int:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size):
                raise ValueError(length)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        expected = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
        shapes = [t["shape"] for t in header.values()]
    except OSError as error:
        user = f"the server's user (uid {os.getuid()})"
        raise StartupError(
            f"{path} cannot be read: {error.strerror}; let {user} read it."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartupError(
            f"{path} is not a safetensors file ({size} bytes); copy it again."
        ) from error
    if size < expected:
        raise StartupError(f"{path} is cut short: {size} of {expected} bytes; copy it again.")
    return sum(math.prod(shape) for shape in shapes)

"""Has the workspace's registry build an image, for machines without Docker (PUSH=build).

    build("NAME.azurecr.io", image)       # azure/image-build.yml, by az acr run; its log on stderr

What is sent is what the Dockerfile copies and mounts, nothing else of the checkout.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.console import say
from scripts.docker import CODE
from scripts.errors import CommandError, UsageError
from scripts.settings import CACHE, ROOT, environment

if TYPE_CHECKING:
    from scripts.azure.images import LocalImage

TASK = Path("azure/image-build.yml")
SECONDS = 14_400
"""The CUDA serve image takes longest; az ends a build after an hour by itself."""


def build(server: str, image: "LocalImage") -> None:
    """Build `image` under its remote tag; UsageError without the Azure CLI, else its exit code."""
    name = server.partition(".")[0]
    environ = environment()
    values = {
        "role": image.role,
        "device": image.device,
        "tag": image.remote_tag,
        "revision": image.revision,
        "inputs": image.inputs,
        "base": environ.get("HOMEPORT_BASE_IMAGE", ""),
        "index": environ.get("HOMEPORT_TORCH_INDEX", ""),
        "vllm": environ.get("HOMEPORT_VLLM", ""),
    }
    command = ["az", "acr", "run", "--registry", name, "--file", TASK.name]
    command += ["--timeout", str(SECONDS)]
    command += [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    say(f"image:  {name} builds {image.remote_tag} from this checkout; the first time takes long")
    CACHE.mkdir(exist_ok=True)
    # the checkout's .dockerignore would keep back the two files that say how to build
    with tempfile.TemporaryDirectory(prefix="context-", dir=CACHE) as folder:
        for source in ("images", *CODE["train"], *CODE["serve"]):
            skip = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
            shutil.copytree(ROOT / source, Path(folder, source), ignore=skip)
        shutil.copy(ROOT / TASK, folder)
        try:
            code = subprocess.run([*command, "."], cwd=folder, stdout=2).returncode
        except FileNotFoundError:
            raise UsageError(
                "PUSH=build needs the Azure CLI (az), which is not installed."
            ) from None
    if code:
        raise CommandError("the registry did not build the image; its log stands above.", code)

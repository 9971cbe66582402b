"""A plain registry: the distribution's program `docker-registry`, on a free port.

with registry(folder) as address:
    requests.get(f"http://{address}/v2/")
"""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import until


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Its HOST:PORT; its files lie below `folder`. Skips where the program is not installed."""
    program = shutil.which("docker-registry")
    if not program:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "registry.yml"
    settings.write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (
        (folder / "registry.log").open("wb") as log,
        subprocess.Popen([program, "serve", str(settings)], stdout=log, stderr=log) as process,
    ):
        try:
            until(lambda: _listens(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

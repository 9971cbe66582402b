"""The contract with the Azure ML inference server: init() once, run() per request to /score.

The server loads this file by its path, not as serve.score, so it sees to it that `serve` can be
imported. All else is in service.py and wire.py.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from azureml_inference_server_http.api.aml_request import rawhttp  # noqa: E402 - needs ROOT

from serve import service, startup, wire  # noqa: E402 - as above
from serve.errors import StartupError  # noqa: E402 - as above
from serve.settings import Settings  # noqa: E402 - as above

_service: service.Service | None = None


def init() -> None:
    """Load the model; a user's mistake ends the server with one sentence, a bug with all of it."""
    global _service
    try:
        _service = service.start(Settings.from_env())
    except StartupError as error:
        startup.fail(str(error))


@rawhttp  # type: ignore[untyped-decorator]
def run(request: Any) -> Any:
    """Answer one request."""
    if _service is None:
        raise RuntimeError("run() was called before init()")
    return wire.handle(_service, request)

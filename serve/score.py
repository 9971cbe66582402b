"""The contract with the Azure ML inference server: init() once, run() per request to /score.

The server loads this file by its path, not as serve.score, so it sees to it that `serve` can be
imported. init() also gives the server its other routes; all of them, and run(), end in routes.py.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from azureml_inference_server_http.api.aml_request import rawhttp  # noqa: E402 - needs ROOT

from serve import auth, live, requestlog, server, startup  # noqa: E402 - as above
from serve.errors import StartupError  # noqa: E402 - as above
from serve.settings import Settings  # noqa: E402 - as above


def init() -> None:
    """Begin to load the model; a user's mistake ends the server with one sentence."""
    try:
        settings = Settings.from_env()
        key = auth.read(settings.key_file) if settings.key_file else None
    except StartupError as error:
        startup.fail(str(error))
    requestlog.join_spans()
    server.add_routes()
    if key is not None:
        server.ask_for(key)
    live.start(settings)


@rawhttp  # type: ignore[untyped-decorator]
def run(request: Any) -> Any:
    """Answer one request."""
    return server.handle(request)

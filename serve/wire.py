"""HTTP in and out of the service: a request as the inference server hands it over, and the reply.

The body is read raw, before any form parsing, so a client that sends no Content-Type is
understood; and no further than the limit, so a huge one costs no memory. It knows nothing of what
the body means.
"""

import json
import time
from typing import Any

from azureml_inference_server_http.api.aml_response import AMLResponse
from werkzeug.exceptions import BadRequest

from serve.errors import RequestError
from serve.request import MAX_BODY_BYTES, too_large
from serve.service import Reply, Service, refusal

PIECE_BYTES = 64 * 1024
DISCARD_BYTES = 64 * 1024 * 1024
"""Of a body over the limit; beyond it the connection is closed in the client's face."""
STALLED_SECONDS = 10
"""Without a byte of the body; a stalled client must not keep a thread."""


def handle(service: Service, request: Any) -> AMLResponse:
    """Answer one Flask request."""
    if request.method == "OPTIONS":
        return AMLResponse("", 200, {"Allow": "POST"})
    if request.method != "POST":
        error = RequestError(405, f"/score takes POST, not {request.method}; send a JSON object.")
        return _response(refusal(error), {"Allow": "POST"})
    try:
        return _response(service.answer(_read(request)))
    except RequestError as error:
        return _response(refusal(error))


def _read(request: Any) -> bytes:
    """The raw body, chunked ones included; RequestError 413 or 400 where it cannot be had."""
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(STALLED_SECONDS)
    try:
        body = bytearray()
        while piece := request.stream.read(PIECE_BYTES):
            body += piece
            if len(body) > MAX_BODY_BYTES:
                _discard(request.stream)
                raise too_large()
        return bytes(body)
    except (OSError, BadRequest):  # stalled or broken off, as gunicorn and werkzeug say it
        raise RequestError(400, "the request body did not arrive whole; send it again.") from None
    finally:
        if connection is not None:
            connection.settimeout(None)


def _discard(stream: Any) -> None:
    """Read on for a while: most clients send all they have before they read the refusal."""
    end = time.monotonic() + STALLED_SECONDS
    left = DISCARD_BYTES
    while left > 0 and time.monotonic() < end and (piece := stream.read(PIECE_BYTES)):
        left -= len(piece)


def _response(reply: Reply, more: "dict[str, str] | None" = None) -> AMLResponse:
    text = json.dumps(reply.body, ensure_ascii=False) + "\n"
    headers = {"Content-Type": "application/json", **reply.headers, **(more or {})}
    return AMLResponse(text.encode(), reply.status, headers)

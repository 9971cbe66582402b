"""Request handling as one object: a Flask request in, a response out. Replaced whole by a reload.

    app = App(kept)
    response = app.handle(flask.request)

A body is read raw, before any form parsing, so a client that sends no Content-Type is understood;
and no further than the limit, so a huge one costs no memory. It knows routes and HTTP, and nothing
of what a body means: that is the dialects'.
"""

import json
import logging
import re
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Response
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest

from serve import dialects, openapi, pages, requestlog
from serve.dialects import openai_common
from serve.dialects.strict_json import MAX_BODY_BYTES, too_large
from serve.errors import RequestError, StartupError, did_you_mean
from serve.kept import Kept
from serve.requestlog import ErrorKind
from serve.service import Reply, Service, refusal
from serve.worker import Timed

log = logging.getLogger("azmlinfsrv.serve")

PIECE_BYTES = 64 * 1024
DISCARD_BYTES = 64 * 1024 * 1024
"""Of a body over the limit; beyond it the connection is closed in the client's face."""
STALLED_SECONDS = 10
"""Without a byte of the body; a stalled client must not keep a thread."""
BODY_SECONDS = 60
"""For the whole of it; nor must one that sends a byte now and then."""
AZURES_MODELS = ("/openai/v1/models", "/openai/models")
MODEL = re.compile(r"(?:/openai)?(?:/v1)?/models/(?P<name>.+)")
JSON = {"Content-Type": "application/json"}


class App:
    """All routes but those of server.py."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._service = Service(kept)
        self._pages: dict[str, Callable[[], Response]] = {
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/v1/models": self._models,
            **dict.fromkeys(AZURES_MODELS, self._models),
            "/docs": lambda: _page(openapi.docs_page()),
            "/playground": lambda: _page(pages.playground()),
            "/openapi.json": lambda: _json(200, openapi.document()),
        }

    def handle(self, request: Any) -> Any:
        """Answer one Flask request."""
        path = request.path
        if found := dialects.find(path):
            return self._ask(request, *found)
        page = self._pages.get(path)
        if page is None and (model := MODEL.fullmatch(path)):
            page = lambda: self._model(model["name"])  # noqa: E731
        if page is None:
            known = (*dialects.ROUTES, *self._pages, "/", "/livez", "/swagger.json")
            sentence = f"there is nothing at {path[:64]}{did_you_mean(path, known)}"
            return _json(404, openai_common.error_body(RequestError(404, sentence)))
        return _only(("GET", "HEAD"), request) or page()

    def warm_up(self) -> float:
        """Seconds for one token, the first time; StartupError where not even that works."""
        started = time.monotonic()
        record = requestlog.Record(request_id="warm-up", route="/score")
        record.finish(200)  # said now, so that it is neither counted nor logged
        body = b'{"prompt": "Hello", "max_new_tokens": 1}'
        reply = self._service.answer(dialects.ROUTES["/score"], body, record, gone=lambda: False)
        if reply.status != 200 and isinstance(reply.body, bytes):
            why = json.loads(reply.body)["error"]["message"]
            raise StartupError(f"the model does not answer a first request: {why}")
        return time.monotonic() - started

    def _ask(self, request: Any, rule: str, dialect: dialects.Dialect) -> Any:
        if wrong := _only(("POST",), request):
            return wrong
        record = requestlog.begin(rule)
        try:
            body = _read(request)
            _need_plain(request)
        except RequestError as error:
            kind: ErrorKind = "too_large" if error.status == 413 else "invalid"
            self._service.end(record, error.status, kind)
            return _response(refusal(error, dialect))
        return _response(self._service.answer(dialect, body, record, gone=_gone(request)))

    def _readyz(self) -> Response:
        running, waiting = self._kept.admission.load
        state = self._kept.engine.state
        body = {
            "status": state or "ready",
            "model": self._kept.model.name,
            "engine": self._kept.engine_name.strip("()"),
            "running": running,
            "waiting": waiting,
            "restarts": self._kept.engine.restarts,
        }
        return _json(503 if state else 200, body, {"Retry-After": "5"} if state else {})

    def _metrics(self) -> Response:
        text, kind = self._kept.metrics.text()
        return Response(text, 200, {"Content-Type": kind})

    def _models(self) -> Response:
        made, context = self._kept.created, self._kept.model.context
        names = self._service.preparer.names
        return _json(200, openai_common.models_body(names, created=made, context=context))

    def _model(self, name: str) -> Response:
        preparer, made = self._service.preparer, self._kept.created
        if name not in preparer.names:
            return _json(404, openai_common.error_body(preparer.no_such_model(name)))
        context = self._kept.model.context
        return _json(200, openai_common.model_body(name, created=made, context=context))


def _only(methods: tuple[str, ...], request: Any) -> Response | None:
    """The answer to another method, OPTIONS among them; None where it is one of these."""
    if request.method in methods:
        return None
    allow = {"Allow": ", ".join((*methods, "OPTIONS"))}
    if request.method == "OPTIONS":
        return Response("", 200, allow)
    sentence = f"{request.path} takes {methods[0]}, not {request.method}."
    if methods == ("POST",):
        sentence = f"{request.path} takes POST, not {request.method}; send a JSON object."
    return _json(405, RequestError(405, sentence).body(), allow)


def _read(request: Any) -> bytes:
    """The raw body, chunked ones included; RequestError 413 or 400 where it cannot be had."""
    connection = request.environ.get("gunicorn.socket")
    timed = isinstance(connection, Timed)
    if timed:
        before = connection.gettimeout()
        connection.settimeout(STALLED_SECONDS)
        connection.read_by = time.monotonic() + BODY_SECONDS
    try:
        body = bytearray()
        while piece := request.stream.read(PIECE_BYTES):
            body += piece
            if len(body) > MAX_BODY_BYTES:
                _discard(request.stream)
                raise too_large()
        if len(body) < (request.content_length or 0):  # what came may still be whole JSON
            raise BadRequest
        return bytes(body)
    except (OSError, BadRequest, ParseException):  # stalled, broken off, or chunks that are none
        raise RequestError(400, "the request body did not arrive whole; send it again.") from None
    finally:
        if timed:
            connection.settimeout(before)
            connection.read_by = None


def _need_plain(request: Any) -> None:
    """RequestError 415 for a compressed body, which a few bytes could make a huge one."""
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        raise RequestError(415, "the request body has a Content-Encoding; send it as plain JSON.")


def _discard(stream: Any) -> None:
    """Read on for a while: most clients send all they have before they read the refusal."""
    end = time.monotonic() + STALLED_SECONDS
    left = DISCARD_BYTES
    while left > 0 and time.monotonic() < end and (piece := stream.read(PIECE_BYTES)):
        left -= len(piece)


def _gone(request: Any) -> Callable[[], bool]:
    """Whether the client has closed its side; without a socket to look at, never."""
    connection = request.environ.get("gunicorn.socket")

    def gone() -> bool:
        if connection is None:
            return False
        try:
            if not select.select([connection], [], [], 0)[0]:
                return False
            return bool(connection.recv(1, socket.MSG_PEEK) == b"")
        except (OSError, ValueError):  # reset, or closed on our side
            return True

    return gone


def _page(text: str) -> Response:
    return Response(text.encode(), 200, pages.headers(text))


def _json(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(body, ensure_ascii=False) + "\n"
    return Response(text.encode("utf-8", "replace"), status, {**JSON, **(headers or {})})


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, {**JSON, **reply.headers})

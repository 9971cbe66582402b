"""The inference server's side of the routes: those beside /score, and what they say while loading.

    GET /         the probe: 503 until the weights are loaded, then 200 as long as the server runs
    GET /livez    200 as long as the server runs
    GET /readyz   200 when the next request will be answered, else 503 and why

Everything else goes to request handling (routes.py), which may be replaced between two requests.
Flask takes no new routes once it serves, so one rule stands for all of them.
"""

import json
import logging
import time
import uuid
from typing import Any

import flask

from serve import auth, live, metrics, pages, requestlog
from serve.errors import RequestError
from serve.worker import Timed

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LOADING_RETRY_SECONDS = 5


def add_routes() -> None:
    """In init(), before the server registers its blueprint."""
    logging.getLogger("azmlinfsrv").addFilter(_not_of_a_request)
    logging.getLogger("gunicorn.access").disabled = True
    from azureml_inference_server_http.server import routes  # made anew for each app

    blueprint = routes.main_blueprint
    blueprint.before_request(_probe_while_loading)
    blueprint.after_app_request(_in_our_form)  # also where no rule was found
    blueprint.add_url_rule(
        "/<path:path>",
        "homeport",
        lambda path: handle(flask.request),
        methods=METHODS,
        provide_automatic_options=False,
    )


def ask_for(key: bytes) -> None:
    """In init() too: whoever lacks the key comes no further than to the probes."""
    from azureml_inference_server_http.server import routes  # as above

    def guard(state: Any) -> None:
        state.app.wsgi_app = auth.Guard(state.app.wsgi_app, key, refused=_refused)

    routes.main_blueprint.record(guard)


def handle(request: Any) -> Any:
    """Answer one Flask request."""
    if request.path == "/livez":
        return flask.Response("alive\n", 200, {"Content-Type": "text/plain"})
    app = live.app()
    if app is None and request.path == "/playground":  # which says that the model is loading
        page = pages.playground()
        return flask.Response(page, 200, pages.headers(page))
    return _loading() if app is None else app.handle(request)


def _not_of_a_request(record: logging.LogRecord) -> bool:
    """The server's own three lines per request say less than ours and cost more."""
    return record.module != "routes" or record.levelno > logging.INFO or record.name != "azmlinfsrv"


def _refused(environ: auth.Environ) -> None:
    """A line in the log, without anything that the stranger made up; the body is not waited for."""
    connection = environ.get("gunicorn.socket")
    if isinstance(connection, Timed):
        connection.read_by = time.monotonic()
    path = environ.get("PATH_INFO", "")
    route = path if path in metrics.ROUTES else metrics.OTHER
    record = requestlog.Record(request_id=str(uuid.uuid4()), route=route)
    record.finish(401, "unauthorized")
    if counters := live.metrics():
        counters.observe(record)
    requestlog.write(record, text=False)


def _in_our_form(response: Any) -> Any:
    """Refusals of the inference server itself: a strange method, a header that is too long."""
    said = response.get_json(silent=True) if response.status_code >= 400 else None
    if isinstance(said, dict) and list(said) == ["message"]:
        error = RequestError(response.status_code, str(said["message"]).rstrip(".") + ".")
        response.set_data(json.dumps(error.body()).encode() + b"\n")
    return response


def _probe_while_loading() -> Any:
    return _loading() if flask.request.path == "/" and live.app() is None else None


def _loading() -> flask.Response:
    sentence = f"the model is loading, {live.loading_seconds():.0f} s so far; retry in a while."
    error = RequestError(503, sentence, retry_after=LOADING_RETRY_SECONDS)
    headers = {"Content-Type": "application/json", "Retry-After": str(error.retry_after)}
    body = {"status": "loading", **error.body()}
    return flask.Response(json.dumps(body).encode() + b"\n", 503, headers)

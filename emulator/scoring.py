"""What the scoring address of an endpoint answers: authentication, routing, limits, the model.

Statuses are those of the service's troubleshooting guide: 401 without the right key or token, 404
without a deployment to route to, 408 after the request timeout, 429 where too many requests are in
flight, 424 for whatever else than 200 the container answers, with its status in a header. Bodies
and reasons of refusals are those that people have shown of the service, where they are known.
"""

import collections
import hmac
import http.client
import secrets
import socket
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from functools import partial

from emulator import online, serving
from emulator.azure import Azure
from emulator.http import Dropped, Reply, Request, Route
from emulator.serving import Service
from emulator.store import Resource

HOST = rf"(?P<endpoint>[^.]+)\.[a-z0-9]+\.{online.SCORING_HOST.replace('.', r'[.]')}"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
AAD_AUDIENCES = ("https://ml.azure.com", "https://ml.azure.com/")
PIN = "azureml-model-deployment"
REASON = "ms-azureml-model-error-reason"
STATUS = "ms-azureml-model-error-statuscode"
CHUNK = 65536
_NOT_PASSED_ON = {
    "authorization",  # the key ends here
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_random = secrets.SystemRandom()


def routes(azure: Azure) -> list[Route]:
    return [Route(method, HOST, "/.*", partial(score, azure)) for method in METHODS]


def score(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """Any path goes to the container; /score to the scoring route that its environment names."""
    endpoint = azure.store.get(
        f"{azure.settings.workspace_id}/onlineEndpoints/{groups['endpoint']}"
    )
    if endpoint is None:
        raise Dropped  # on Azure the name would not resolve
    tracing = {"x-request-id": str(uuid.uuid4())}
    if problem := _stranger(azure, endpoint, request.headers.get("authorization", "")):
        return _refusal(401, problem, tracing)
    name = _choose(azure, endpoint, request.headers.get(PIN, ""))
    if not name:
        return _refusal(
            404,
            "No valid deployments to route to. Please check that the endpoint has at least one "
            "deployment with positive weight values or use a deployment specific header to route.",
            tracing,
        )
    for shadow, percent in endpoint["properties"]["mirrorTraffic"].items():
        if _random.random() * 100 < percent:
            copy = partial(_copy, _service(azure, endpoint, shadow), request, dict(tracing))
            threading.Thread(target=copy, daemon=True).start()
    return _ask(_service(azure, endpoint, name), request, {**tracing, PIN: name})


def _stranger(azure: Azure, endpoint: Resource, authorization: str) -> str:
    """Why the caller may not score; nothing where it may."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        return "key_auth_bad_header_forbidden"
    given = given.strip()
    mode = endpoint["properties"]["authMode"]
    if mode == "Key":
        keys = serving.fleet(azure).keys(endpoint["id"]).values.values()
        known = [hmac.compare_digest(given.encode(), key.encode()) for key in keys]
        return "" if any(known) else "key_auth_access_denied"
    audiences = AAD_AUDIENCES if mode == "AADToken" else (endpoint["id"].lower(),)
    try:
        azure.tokens.check(given, *audiences)
    except ValueError as problem:
        return str(problem)
    return ""


def _choose(azure: Azure, endpoint: Resource, pin: str) -> str:
    """The deployment that the header pins, else one by the weights of the traffic."""
    deployments: dict[str, str] = {
        deployment["name"].lower(): deployment["name"]
        for deployment in azure.store.children(f"{endpoint['id']}/deployments")
    }
    if pin:
        return deployments.get(pin.lower(), "")
    traffic: dict[str, int] = endpoint["properties"]["traffic"]
    names = [name for name, percent in traffic.items() if percent and name.lower() in deployments]
    if not names:
        return ""
    name = _random.choices(names, [traffic[name] for name in names])[0]
    return deployments[name.lower()]


def _service(azure: Azure, endpoint: Resource, name: str) -> Service:
    return serving.fleet(azure).service(azure, f"{endpoint['id']}/deployments/{name}")


def _ask(service: Service, request: Request, headers: dict[str, str]) -> Reply:
    """The answer of one of the deployment's containers; `headers` go there and come back."""
    spec, instances = service.spec, service.instances()
    if spec is None or not instances:
        return _refusal(424, "", {**headers, REASON: "model_not_ready"})
    if not service.enter():
        return _refusal(429, "", {**headers, REASON: "too_many_pending_request"})
    exchange = Exchange(service, _random.choice(instances).address, spec.request_seconds)
    path = spec.scoring_path if request.path == "/score" else request.path
    streams = False
    try:
        response = exchange.ask(
            request.method, _target(path, request.query), request.body, _passed_on(request, headers)
        )
        answered = {**_kept(response), **headers, "ms-azureml-model-time": exchange.milliseconds}
        if response.status != 200:
            answered |= {REASON: "model_error", STATUS: str(response.status)}
            return Reply(424, b"".join(exchange.parts(response)), answered)
        if response.getheader("content-length") is not None:
            return Reply(200, b"".join(exchange.parts(response)), answered)
        stream = exchange.stream(response)
        next(stream)  # begun, so that its end is certain to be noticed
        streams = True
        return Reply(200, stream, answered)
    except TimeoutError:
        return _refusal(408, "upstream request timeout", headers)
    except (OSError, http.client.HTTPException):
        return _refusal(424, "", {**headers, REASON: "model_error", STATUS: "502"})
    finally:
        if not streams:
            exchange.close()


def _copy(service: Service, request: Request, headers: dict[str, str]) -> None:
    """A mirrored request, whose answer nobody reads."""
    reply = _ask(service, request, headers)
    if isinstance(reply.body, Iterator):
        collections.deque(reply.body, maxlen=0)


class Exchange:
    """One request to a container, which has to be answered within the request timeout."""

    def __init__(self, service: Service, address: tuple[str, int], seconds: float) -> None:
        """The caller has taken a place in flight, which `close` gives back."""
        self._service = service
        self._connection = http.client.HTTPConnection(*address, timeout=seconds)
        self._socket: socket.socket | None = None
        self._began = time.monotonic()
        self._ends = self._began + seconds

    @property
    def milliseconds(self) -> str:
        """Since it began."""
        return str(round((time.monotonic() - self._began) * 1000))

    def ask(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """The head of the answer."""
        self._connection.connect()
        self._socket = self._connection.sock  # http.client may let go of it before the body's end
        self._connection.request(method, target, body, dict(headers))
        self._limit()
        return self._connection.getresponse()

    def parts(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The body as it comes."""
        self._limit()
        while part := response.read1(CHUNK):
            yield part
            self._limit()

    def stream(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """First nothing, then the body as it comes; after the request timeout it breaks off."""
        try:
            yield b""
            yield from self.parts(response)
        except (OSError, http.client.HTTPException):
            raise Dropped from None
        finally:
            self.close()

    def close(self) -> None:
        self._connection.close()
        self._service.leave()

    def _limit(self) -> None:
        """Let the next read wait no longer than the request may still take."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._socket:
            self._socket.settimeout(left)


def _target(path: str, query: Mapping[str, str]) -> str:
    quoted = urllib.parse.quote(path)
    return f"{quoted}?{urllib.parse.urlencode(query)}" if query else quoted


def _passed_on(request: Request, headers: Mapping[str, str]) -> dict[str, str]:
    kept = {name: v for name, v in request.headers.items() if name not in _NOT_PASSED_ON}
    if "x-ms-client-request-id" in kept:
        kept["x-ms-client-request-id"] = kept["x-ms-client-request-id"][:40]
    return {**kept, **headers}


def _kept(response: http.client.HTTPResponse) -> dict[str, str]:
    drop = _NOT_PASSED_ON | {"date", "server", "x-request-id"}
    return {name: value for name, value in response.getheaders() if name.lower() not in drop}


def _refusal(status: int, text: str, headers: Mapping[str, str]) -> Reply:
    return Reply(status, text.encode(), {**headers, "Content-Type": "text/plain"})

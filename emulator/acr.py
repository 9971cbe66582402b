"""The container registry: ACR's login in front of a plain registry that holds the bytes.

A client without a token is challenged (401), exchanges its Entra token for a refresh token, and
that for an access token to one repository, as on ACR. Everything below /v2/ is then passed on to
Settings.registry as it comes: layers are gigabytes.
"""

import http.client
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from emulator.azure import Azure
from emulator.http import Refusal, Reply, Request, Route
from emulator.wire import Body

HOST = r"[a-z0-9]+\.azurecr\.io"
ENTRA = (
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://containerregistry.azure.net",
)
"""Audiences of the Entra tokens that ACR exchanges."""
BLOCK = 1 << 20
SECONDS = 600
"""How long the registry may be silent."""
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "authorization"}
"""Headers of one connection, and those that are for us."""
REPOSITORY = re.compile(r"/v2/(?P<name>.+)/(?:blobs|manifests|tags|referrers)(?:/.*)?")


class RegistryRefusal(Refusal):
    """An answer in the envelope that registries share (OCI distribution specification)."""

    def body(self) -> dict[str, Any]:
        return {"errors": [{"code": self.code, "message": str(self), "detail": None}]}


class Registry:
    """Answers for the one registry."""

    def __init__(self, azure: Azure) -> None:
        self._settings = azure.settings
        self._tokens = azure.tokens

    def exchange(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST /oauth2/exchange: Entra's token for a refresh token."""
        form = self._form(request)
        claims = self._checked(form.get("access_token", ""), *ENTRA)
        refresh = self._tokens.issue(
            self._settings.login_server, claims["oid"], grant_type="refresh_token"
        )
        return Reply(200, {"refresh_token": refresh})

    def token(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST /oauth2/token: a refresh token for an access token to what `scope` names."""
        form = self._form(request)
        claims = self._checked(form.get("refresh_token", ""), self._settings.login_server)
        if claims.get("grant_type") != "refresh_token":
            raise _unauthorized("an access token is no refresh token")
        access = []
        for scope in form.get("scope", "").split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        token = self._tokens.issue(self._settings.login_server, claims["oid"], access=access)
        return Reply(200, {"access_token": token})

    def forward(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """Anything below /v2/, passed on once its token allows it."""
        self._authorize(request)
        if not self._settings.registry:
            raise RegistryRefusal(
                503,
                "UNAVAILABLE",
                "This rehearsal runs without a registry for images: start it in Docker mode.",
            )
        try:
            return self._forward(request)
        except OSError as problem:
            raise RegistryRefusal(
                503, "UNAVAILABLE", f"The registry at {self._settings.registry} failed: {problem}."
            ) from None

    def _forward(self, request: Request) -> Reply:
        target = urllib.parse.urlsplit(self._settings.registry)
        connection = http.client.HTTPConnection(
            target.hostname or "", target.port or 80, timeout=SECONDS, blocksize=BLOCK
        )
        headers = {name: value for name, value in request.headers.items() if name not in HOP}
        # by these two the registry names itself in Location as clients know it
        headers |= {"Host": self._settings.login_server, "X-Forwarded-Proto": "https"}
        body = request.stream
        has_body = isinstance(body, Body) and not body.ended
        query = f"?{urllib.parse.urlencode(request.query)}" if request.query else ""
        try:
            connection.request(
                request.method,
                urllib.parse.quote(request.path) + query,
                body=body if has_body else None,
                headers=headers,
            )
            answer = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        passed = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        if location := passed.get("Location"):
            # ACR's are relative
            passed["Location"] = urllib.parse.urlunsplit(
                urllib.parse.urlsplit(location)._replace(scheme="", netloc="")
            )
        return Reply(answer.status, _Passing(connection, answer), passed)

    def _authorize(self, request: Request) -> None:
        repository = REPOSITORY.fullmatch(request.path)
        action = "pull" if request.method in ("GET", "HEAD") else "push"
        wanted = f"repository:{repository['name']}:" if repository else ""
        scope = f"{wanted}pull,push" if action == "push" else f"{wanted}pull"
        try:
            claims = self._tokens.require(request, self._settings.login_server)
        except Refusal:
            raise self._challenge(scope if repository else "") from None
        if repository and not any(
            one["name"] == repository["name"] and {action, "*"} & set(one["actions"])
            for one in claims.get("access", ())
        ):
            raise self._challenge(scope)

    def _challenge(self, scope: str) -> Refusal:
        server = self._settings.login_server
        challenge = f'Bearer realm="https://{server}/oauth2/token",service="{server}"'
        if scope:
            challenge += f',scope="{scope}"'
        return _unauthorized(
            "authentication required",
            {"WWW-Authenticate": challenge, "Docker-Distribution-Api-Version": "registry/2.0"},
        )

    def _checked(self, token: str, *audiences: str) -> dict[str, Any]:
        try:
            return self._tokens.check(token, *audiences)
        except ValueError as problem:
            raise _unauthorized(str(problem)) from None

    def _form(self, request: Request) -> dict[str, str]:
        if request.host != self._settings.login_server:
            raise RegistryRefusal(404, "NAME_UNKNOWN", f"There is no registry {request.host}.")
        body = request.stream.read() if request.stream else b""
        return dict(urllib.parse.parse_qsl(body.decode(errors="replace")))


class _Passing(Iterator[bytes]):
    """The body of the registry's answer as it comes; a generator never begun would not close."""

    def __init__(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
    ) -> None:
        self._connection = connection
        self._answer = answer

    def __next__(self) -> bytes:
        block = self._answer.read(BLOCK)
        if not block:
            raise StopIteration
        return block

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


def _unauthorized(sentence: str, headers: Mapping[str, str] | None = None) -> Refusal:
    return RegistryRefusal(401, "UNAUTHORIZED", sentence, headers=headers)


def routes(azure: Azure) -> list[Route]:
    registry = Registry(azure)
    return [
        Route("POST", HOST, r"/oauth2/exchange", registry.exchange),
        Route("POST", HOST, r"/oauth2/token", registry.token),
        *(
            Route(method, HOST, r"/v2/.*", registry.forward)
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        ),
    ]

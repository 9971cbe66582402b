"""Who may ask: whoever sends the key, in either of the two ways that clients know.

    Authorization: Bearer KEY       Azure ML's endpoints, OpenAI's clients
    api-key: KEY                    Azure OpenAI's clients

The key comes in a file (SERVE_KEY_FILE), so that neither the environment nor a command line shows
it. Without that setting nobody is asked for one: on Azure the platform has looked at keys before a
request comes here. The guard stands before Flask, so a stranger's body is never read, and strangers
do not learn which routes there are. The probes are open, for they cannot send a key, and so is the
chat page, which asks for it.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from serve.errors import RequestError, StartupError

OPEN = frozenset(("/", "/livez", "/readyz", "/playground"))
SHORTEST = 16
"""Characters of a key; ours have 43 (256 bits)."""
REFUSAL = RequestError(
    401,
    "this server asks for its key; send it as Authorization: Bearer KEY, or as api-key: KEY.",
)

Environ = dict[str, Any]
Start = Callable[..., Any]
Wsgi = Callable[[Environ, Start], Iterable[bytes]]


def read(path: str) -> bytes:
    """The key in the file; StartupError where there is none that could be sent."""
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise StartupError(
            f"the key cannot be read from SERVE_KEY_FILE={path}: {error.strerror}."
        ) from None
    if len(key) < SHORTEST or not all(33 <= byte <= 126 for byte in key):
        raise StartupError(
            f"SERVE_KEY_FILE={path} must hold one key: at least {SHORTEST} characters of ASCII, "
            "without spaces."
        )
    return key


class Guard:
    """A WSGI application that lets through to another one whoever has the key."""

    def __init__(self, app: Wsgi, key: bytes, *, refused: Callable[[Environ], None]) -> None:
        self._app = app
        self._digest = hashlib.sha256(key).digest()
        self._refused = refused
        """Told of each request that was not let through."""

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        # taken out, so that nothing behind this line can log what was sent
        sent = [environ.pop(name, "") for name in ("HTTP_AUTHORIZATION", "HTTP_API_KEY")]
        if _is_open(environ) or self._is_key(_bearer(sent[0])) | self._is_key(sent[1]):
            return self._app(environ, start)
        self._refused(environ)
        body = json.dumps(REFUSAL.body()).encode() + b"\n"
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("WWW-Authenticate", "Bearer"),
        ]
        start("401 Unauthorized", headers)
        return [body]

    def _is_key(self, sent: str) -> bool:
        """In constant time; of digests, so that not even the key's length shows."""
        # WSGI hands bytes over as the characters of latin-1
        given = hashlib.sha256(sent.strip().encode("latin-1", "replace")).digest()
        return hmac.compare_digest(given, self._digest)


def _bearer(header: str) -> str:
    scheme, _, key = header.strip().partition(" ")
    return key if scheme.lower() == "bearer" else ""


def _is_open(environ: Environ) -> bool:
    method = environ.get("REQUEST_METHOD")
    if method == "OPTIONS":  # browsers ask without a key whether they may send one; it does nothing
        return "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    return method in ("GET", "HEAD") and environ.get("PATH_INFO") in OPEN

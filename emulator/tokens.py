"""Bearer tokens: well-formed JWTs that this Azure signs, and knows again.

Clients read claims out of them (audience, tenant, object id, end) as they do with Entra's. The
signature is an HMAC of a key that lives as long as the process, so that a token of elsewhere, or
of an earlier session, is refused as on Azure.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

from emulator.http import Refusal, Request

SECONDS = 3600
"""How long a token holds."""


class Tokens:
    """Issues tokens and checks them."""

    def __init__(self, tenant: str) -> None:
        self._key = secrets.token_bytes(32)
        self._tenant = tenant
        self.client_id = "22222222-3333-4444-5555-666666666666"
        """The application that logs in; its object id too."""
        self.client_secret = secrets.token_urlsafe(24)
        self.identity_secret = secrets.token_urlsafe(24)
        """What a node shows to get a token of its managed identity."""

    def issue(self, audience: str, subject: str, **claims: Any) -> str:
        """A token for `audience` in the name of the object id `subject`."""
        begin = int(time.time())
        body = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self._tenant}/",
            "tid": self._tenant,
            "oid": subject,
            "sub": subject,
            "appid": subject,
            "iat": begin,
            "nbf": begin - 300,
            "exp": begin + SECONDS,
            "ver": "1.0",
            **claims,
        }
        signed = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(body)}"
        return f"{signed}.{self._sign(signed)}"

    def check(self, token: str, *audiences: str) -> dict[str, Any]:
        """The claims; ValueError with the reason where it is not ours, for another, or ended."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature, self._sign(signed)):
            raise ValueError("The token's signature is not this tenant's.")
        part = signed.partition(".")[2]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        if claims["exp"] < time.time():
            raise ValueError("The access token expiry is in the past.")
        if str(claims["aud"]).rstrip("/") not in audiences:
            raise ValueError(f"The token is for '{claims['aud']}', not for '{audiences[0]}'.")
        return claims

    def require(self, request: Request, *audiences: str) -> dict[str, Any]:
        """The claims of the request's bearer token; Refusal 401 as the control plane words it."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
            )
        try:
            return self.check(token, *audiences)
        except ValueError as problem:
            raise Refusal(401, "InvalidAuthenticationToken", str(problem)) from None

    def _sign(self, text: str) -> str:
        digest = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _encode(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()

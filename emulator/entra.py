"""Entra ID for one application that two tenants know: discovery documents, and tokens by its
client secret.

What azure-identity's ClientSecretCredential and DefaultAzureCredential (through the environment)
ask. People cannot log in here: there is no browser page and no device code.
"""

import hmac
import urllib.parse
from collections.abc import Mapping
from typing import Any

from emulator.azure import Azure
from emulator.http import Reply, Request, Route
from emulator.tenants import ABROAD
from emulator.tokens import SECONDS

HOST = "login.microsoftonline.com"
LOGIN = r"login\.microsoftonline\.com"


class Entra:
    """Answers for the two tenants."""

    def __init__(self, azure: Azure) -> None:
        self._tenant = azure.settings.tenant
        self._tokens = azure.tokens

    def configuration(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET /TENANT/v2.0/.well-known/openid-configuration."""
        base = f"https://{HOST}/{groups['tenant']}"
        return Reply(
            200,
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
                "response_types_supported": ["code"],
                "subject_types_supported": ["pairwise"],
            },
        )

    def instances(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET /common/discovery/instance: which host names are one cloud."""
        return Reply(
            200,
            {
                "tenant_discovery_endpoint": (
                    f"https://{HOST}/{self._tenant}/v2.0/.well-known/openid-configuration"
                ),
                "api-version": "1.1",
                "metadata": [
                    {"preferred_network": HOST, "preferred_cache": HOST, "aliases": [HOST]}
                ],
            },
        )

    def token(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST /TENANT/oauth2/v2.0/token, grant client_credentials."""
        form = dict(urllib.parse.parse_qsl(request.body.decode(errors="replace")))
        tenant = groups["tenant"].lower()
        if tenant not in (self._tenant, ABROAD):
            return _error("invalid_request", f"AADSTS90002: Tenant '{groups['tenant']}' not found.")
        if form.get("grant_type") != "client_credentials":
            grant = form.get("grant_type", "")
            return _error(
                "unsupported_grant_type", f"AADSTS70003: The grant type '{grant}' is not supported."
            )
        if form.get("client_id") != self._tokens.client_id:
            return _error(
                "unauthorized_client",
                f"AADSTS700016: Application with identifier '{form.get('client_id', '')}' was not"
                " found in the directory.",
            )
        given = form.get("client_secret", "").encode()
        if not hmac.compare_digest(given, self._tokens.client_secret.encode()):
            return _error("invalid_client", "AADSTS7000215: Invalid client secret provided.", 401)
        scope, _, default = form.get("scope", "").split(" ")[0].rpartition("/.")
        if default != "default":
            return _error(
                "invalid_scope",
                "AADSTS1002012: The provided value for scope is not valid. Client credential flows"
                " must have a scope value with /.default suffixed to the resource identifier.",
            )
        return Reply(
            200,
            {
                "token_type": "Bearer",
                "expires_in": SECONDS,
                "ext_expires_in": SECONDS,
                "access_token": self._tokens.issue(
                    scope.rstrip("/"),
                    self._tokens.client_id,
                    iss=f"https://sts.windows.net/{tenant}/",
                    tid=tenant,
                ),
            },
            {"Cache-Control": "no-store"},
        )


def _error(code: str, sentence: str, status: int = 400) -> Reply:
    body: dict[str, Any] = {"error": code, "error_description": sentence, "error_codes": []}
    return Reply(status, body)


def routes(azure: Azure) -> list[Route]:
    entra = Entra(azure)
    tenant = r"/(?P<tenant>[^/]+)"
    return [
        Route("GET", LOGIN, r"/common/discovery/instance", entra.instances),
        Route(
            "GET",
            LOGIN,
            rf"{tenant}(/v2\.0)?/\.well-known/openid-configuration",
            entra.configuration,
        ),
        Route("POST", LOGIN, rf"{tenant}/oauth2/v2\.0/token", entra.token),
    ]

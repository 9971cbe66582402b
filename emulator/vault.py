"""Key Vault's secrets, and the endpoint where a node gets tokens of its managed identity.

A request without a token is challenged as Key Vault does, so that its clients learn tenant and
resource. Secrets lie in azure.secrets, in memory; the journal never holds their values.
"""

import hmac
import time
import uuid
from collections.abc import Mapping

from emulator.azure import Azure
from emulator.http import Refusal, Reply, Request, Route
from emulator.tokens import SECONDS

HOST = r"[a-z0-9-]+\.vault\.azure\.net"
RESOURCE = "https://vault.azure.net"
IDENTITY_API = "2017-09-01"


class Vault:
    """Answers for the one vault."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure
        self._versions: dict[str, str] = {}

    def get(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET secrets/NAME[/VERSION]."""
        self._authorize(request)
        name = groups["name"]
        if name not in self._azure.secrets or groups["version"] not in (
            "",
            None,
            self._version(name),
        ):
            raise Refusal(
                404,
                "SecretNotFound",
                f"A secret with (name/id) {name} was not found in this vault.",
            )
        return self._secret(name)

    def put(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """PUT secrets/NAME with {"value": …}."""
        self._authorize(request)
        value = request.json().get("value")
        if not isinstance(value, str):
            raise Refusal(400, "BadParameter", "Property 'value' is required.")
        self._azure.secrets[groups["name"]] = value
        self._versions[groups["name"]] = uuid.uuid4().hex
        return self._secret(groups["name"])

    def _authorize(self, request: Request) -> None:
        settings = self._azure.settings
        if request.host != settings.vault:
            raise Refusal(404, "VaultNotFound", f"There is no vault {request.host}.")
        try:
            self._azure.tokens.require(request, RESOURCE)
        except Refusal as refusal:
            challenge = (
                f'Bearer authorization="https://login.microsoftonline.com/{settings.tenant}",'
                f' resource="{RESOURCE}"'
            )
            headers = {"WWW-Authenticate": challenge}
            raise Refusal(401, "Unauthorized", f"AKV10000: {refusal}", headers=headers) from None

    def _version(self, name: str) -> str:
        return self._versions.setdefault(name, uuid.uuid4().hex)

    def _secret(self, name: str) -> Reply:
        return Reply(
            200,
            {
                "value": self._azure.secrets[name],
                "id": f"https://{self._azure.settings.vault}/secrets/{name}/{self._version(name)}",
                "attributes": {"enabled": True, "recoveryLevel": "Recoverable+Purgeable"},
            },
        )


def identity_token(azure: Azure, request: Request) -> Reply:
    """GET of MSI_ENDPOINT as Azure ML's nodes offer it (api-version 2017-09-01), on the control.

    The identity is the workspace's; azure-identity's ManagedIdentityCredential asks it so.
    """
    given = request.headers.get("secret", "").encode()
    if not hmac.compare_digest(given, azure.tokens.identity_secret.encode()):
        raise Refusal(401, "Unauthorized", "The header 'secret' is not this node's MSI_SECRET.")
    if request.api_version != IDENTITY_API or not request.query.get("resource"):
        raise Refusal(400, "BadRequest", f"Ask with api-version={IDENTITY_API} and resource=….")
    resource = request.query["resource"].removesuffix("/.default").rstrip("/")
    return Reply(
        200,
        {
            "access_token": azure.tokens.issue(resource, azure.settings.guid),
            "expires_on": str(int(time.time()) + SECONDS),
            "resource": resource,
            "token_type": "Bearer",
        },
    )


def routes(azure: Azure) -> list[Route]:
    vault = Vault(azure)
    path = r"/secrets/(?P<name>[0-9A-Za-z-]+)(/(?P<version>[0-9a-f]*))?"
    return [Route("GET", HOST, path, vault.get), Route("PUT", HOST, path, vault.put)]

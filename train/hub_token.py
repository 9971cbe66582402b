"""The hub token of a job on Azure ML: read from the workspace's key vault by the job's identity.

    fetch(os.environ)       # before anything is downloaded; does nothing where no secret is named

A job's variables are shown to all who see the workspace, so the job carries the secret's address,
HOMEPORT_HUB_TOKEN_SECRET=https://VAULT.vault.azure.net/secrets/NAME, and the value only ever is in
HF_TOKEN of this process and those that it starts. A token that is set already wins.
"""

import logging
import re
from collections.abc import MutableMapping

from train.errors import InputError, MachineError, reason

VARIABLE = "HOMEPORT_HUB_TOKEN_SECRET"
ADDRESS = re.compile(r"https://[0-9a-z-]{3,24}\.vault\.azure\.net/secrets/[0-9A-Za-z-]{1,127}")
SCOPE = "https://vault.azure.net/.default"
API_VERSION = "7.4"
SECONDS = 30

log = logging.getLogger(__name__)


def fetch(environ: MutableMapping[str, str]) -> None:
    """Set HF_TOKEN from the secret that HOMEPORT_HUB_TOKEN_SECRET names.

    InputError for an address that is no vault's secret, or where the secret is not there or not
    ours to read; MachineError where identity or vault do not answer.
    """
    address = environ.get(VARIABLE, "")
    if not address or environ.get("HF_TOKEN"):
        return
    if not ADDRESS.fullmatch(address):  # the identity's token goes to key vaults only
        raise InputError(
            f"{VARIABLE} is {address}: it must be https://VAULT.vault.azure.net/secrets/NAME."
        )
    environ["HF_TOKEN"] = _read(address, environ.get("DEFAULT_IDENTITY_CLIENT_ID"))
    log.info("hub token: from %s", address)


def _read(address: str, client_id: str | None) -> str:
    import requests
    from azure.core.exceptions import AzureError
    from azure.identity import ManagedIdentityCredential

    try:
        token = ManagedIdentityCredential(client_id=client_id).get_token(SCOPE).token
        answer = requests.get(
            address,
            params={"api-version": API_VERSION},
            headers={"Authorization": f"Bearer {token}"},
            timeout=SECONDS,
        )
    except (AzureError, requests.RequestException) as error:
        raise MachineError(
            f"the hub token cannot be read from {address}: {reason(error)}; give the job a managed "
            "identity, or leave cloud.hub_token_secret empty."
        ) from None
    if answer.status_code == 404:
        raise InputError(f"{address} is not there: az keyvault secret set makes it.")
    if answer.status_code in (401, 403):
        raise InputError(
            f"the job's identity may not read {address}: give it the role Key Vault Secrets User "
            "(make cloud-plan shows the command)."
        )
    if not answer.ok:
        raise MachineError(f"{address} answers HTTP {answer.status_code}: start the job again.")
    return str(answer.json()["value"])

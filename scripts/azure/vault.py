"""The workspace's key vault: where a hub token lies, so that no job shows it in its variables.

    variables = job_variables(cloud, recipe)      # HOMEPORT_HUB_TOKEN_SECRET=https://…/secrets/NAME

The job gets the secret's address only; train/hub_token.py reads the value there, as the job's
managed identity. The verbs never read a secret. `put` is for the rehearsal; on Azure there is
az keyvault secret set.
"""

import re
from typing import TYPE_CHECKING

from scripts.errors import UsageError

if TYPE_CHECKING:
    from scripts.azure.client import Cloud
    from train.recipe import Recipe

VARIABLE = "HOMEPORT_HUB_TOKEN_SECRET"
"""What train/hub_token.py reads."""
SECRETS_API = "7.4"
SCOPE = "https://vault.azure.net/.default"
NAME = re.compile(r"[0-9A-Za-z-]{1,127}")
"""https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates"""


def secret_uri(cloud: "Cloud", name: str) -> str:
    """`https://VAULT.vault.azure.net/secrets/NAME`; UsageError where that can be none."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"cloud.hub_token_secret is {name!r}: a secret's name has letters, digits and - only."
        )
    arm_id = cloud.workspace.key_vault_id
    if not arm_id:
        raise UsageError(
            f"workspace {cloud.workspace.name} has no key vault for cloud.hub_token_secret: leave "
            "it empty and stage the model instead (make cloud-stage)."
        )
    return f"https://{arm_id.rpartition('/')[2].lower()}.vault.azure.net/secrets/{name}"


def job_variables(cloud: "Cloud", recipe: "Recipe") -> dict[str, str]:
    """The variables by which a job finds its hub token; empty where the recipe names no secret."""
    name = recipe.cloud.hub_token_secret
    return {VARIABLE: secret_uri(cloud, name)} if name else {}


def put(cloud: "Cloud", name: str, value: str) -> None:
    """Write the secret; its value goes to the vault and nowhere else."""
    cloud.rest.put(secret_uri(cloud, name), {"value": value}, SECRETS_API, scope=SCOPE)

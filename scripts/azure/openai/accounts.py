"""Azure OpenAI resources: which one a recipe uses, and what else is in the subscription.

    account = find(cloud, recipe)       # cloud.openai.resource, or the resource group's only one
    there = target(cloud, recipe)       # where it is served: the same, or cloud.openai.deploy_to

A resource in another tenant is asked with a token of that tenant, which the same login must be
able to get. It makes and changes nothing.
"""

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from scripts.azure.client import ARM_SCOPE, Cloud, NotFound, Rest
from scripts.console import say
from scripts.errors import CloudError, UsageError
from scripts.settings import login_shown
from train.recipe import Recipe

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

API = "2024-10-01"
"""Of Microsoft.CognitiveServices: accounts, deployments, keys."""
KINDS = ("OpenAI", "AIServices")
"""Kinds of resources that have OpenAI's models."""
ID = re.compile(
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/"
    r"Microsoft\.CognitiveServices/accounts/([^/]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An Azure OpenAI resource, and how it is asked."""

    id: str
    """ARM id."""
    name: str
    location: str
    endpoint: str
    """`https://NAME.openai.azure.com`."""
    keys: bool
    """Whether it lets in who has a key."""
    tenant: str
    """Of another tenant; empty for the login's own."""
    rest: Rest
    """Asks ARM with a token of its tenant."""
    credential: "TokenCredential"
    """Gives tokens of its tenant."""

    @property
    def group(self) -> str:
        found = ID.fullmatch(self.id)
        return found[2] if found else ""


@dataclass(frozen=True, slots=True)
class InTenant:
    """The login's tokens for another tenant."""

    credential: "TokenCredential"
    tenant: str

    def get_token(self, *scopes: str, **options: Any) -> "AccessToken":
        return self.credential.get_token(*scopes, **{**options, "tenant_id": self.tenant})


def find(cloud: Cloud, recipe: Recipe) -> Account:
    """Where the recipe is trained; UsageError where that is not clear."""
    named = recipe.cloud.openai.resource
    if "/" in named:
        return read(cloud, named, key="cloud.openai.resource")
    there = in_group(cloud)
    if named:
        for account in there:
            if account.name.casefold() == named.casefold():
                return account
    elif len(there) == 1:
        return there[0]
    group = cloud.workspace.resource_group
    names = ", ".join(account.name for account in there)
    if not there:
        raise UsageError(
            f"resource group {group} has no Azure OpenAI resource: az cognitiveservices account "
            f"create --kind OpenAI --sku S0 --resource-group {group} --location … --name NAME "
            "--custom-domain NAME; or name one elsewhere by its ARM id in cloud.openai.resource."
        )
    if named:
        raise UsageError(
            f"cloud.openai.resource: resource group {group} has no Azure OpenAI resource {named}; "
            f"it has: {names}."
        )
    raise UsageError(
        f"resource group {group} has several Azure OpenAI resources ({names}): set "
        "cloud.openai.resource to one of them."
    )


def target(cloud: Cloud, recipe: Recipe) -> Account:
    """Where the recipe's model is served."""
    settings = recipe.cloud.openai
    if not settings.deploy_to:
        return find(cloud, recipe)
    return read(cloud, settings.deploy_to, settings.deploy_tenant, key="cloud.openai.deploy_to")


def read(cloud: Cloud, arm_id: str, tenant: str = "", *, key: str) -> Account:
    """The resource of that ARM id; `key` of the recipe names it."""
    arm_id = f"/{arm_id.strip('/')}"
    if not ID.fullmatch(arm_id):
        raise UsageError(
            f"{key} is {arm_id}: give the ARM id of a Microsoft.CognitiveServices account, as az "
            "cognitiveservices account show --query id prints it."
        )
    credential: TokenCredential = cloud.credential
    rest = cloud.rest
    if tenant:
        credential = cast("TokenCredential", InTenant(_wide(tenant), tenant))
        rest = Rest(credential)
    try:
        found = rest.get(arm_id, API)
    except NotFound:
        raise UsageError(f"{key}: there is no resource {arm_id}, or you may not see it.") from None
    return _account(found, tenant, rest, credential)


def in_group(cloud: Cloud) -> list[Account]:
    """Those of the workspace's resource group, by name."""
    space = cloud.workspace
    return _listed(
        cloud, f"/subscriptions/{space.subscription}/resourceGroups/{space.resource_group}"
    )


def everywhere(cloud: Cloud) -> list[Account]:
    """Those of the workspace's subscription; of its group where more may not be seen."""
    try:
        return _listed(cloud, f"/subscriptions/{cloud.workspace.subscription}")
    except CloudError:
        return in_group(cloud)


def bearer(account: Account) -> str:
    """A token of the resource's tenant for ARM."""
    return account.credential.get_token(ARM_SCOPE).token


def key(account: Account) -> str:
    """Its first key; UsageError where it takes none."""
    if not account.keys:
        raise UsageError(
            f"{account.name} takes no keys, only Entra tokens: az account get-access-token "
            "--resource https://cognitiveservices.azure.com --query accessToken --output tsv"
        )
    return str(account.rest.post(f"{account.id}/listKeys", {}, API)["key1"])


def check_model(account: Account, model: str) -> None:
    """UsageError where the resource says that it does not fine-tune the model (any more)."""
    rows = account.rest.all(f"{account.id}/models", API)
    able = {
        f"{row['name']}-{row['version']}": (row.get("capabilities") or {}).get("fineTune") == "true"
        for row in rows
        if row.get("format", "OpenAI") == "OpenAI" and ".ft-" not in row["name"]
    }
    if able.get(model, True):
        if able and model not in able and ".ft-" not in model:
            say(f"note:   {account.name} does not list {model}; it may refuse it")
        return
    names = ", ".join(sorted(name for name, can in able.items() if can)) or "none"
    raise UsageError(
        f"cloud.model is {model}, which {account.name} in {account.location} does not fine-tune; "
        f"it fine-tunes: {names}."
    )


def _listed(cloud: Cloud, scope: str) -> list[Account]:
    rows = cloud.rest.all(f"{scope}/providers/Microsoft.CognitiveServices/accounts", API)
    found = [
        _account(row, "", cloud.rest, cloud.credential) for row in rows if row["kind"] in KINDS
    ]
    return sorted(found, key=lambda account: account.name)


def _account(
    found: dict[str, Any], tenant: str, rest: Rest, credential: "TokenCredential"
) -> Account:
    properties = found["properties"]
    domain = properties.get("customSubDomainName") or found["name"]
    return Account(
        id=found["id"],
        name=found["name"],
        location=found["location"],
        endpoint=f"https://{domain}.openai.azure.com",
        keys=not properties.get("disableLocalAuth"),
        tenant=tenant,
        rest=rest,
        credential=credential,
    )


def _wide(tenant: str) -> "TokenCredential":
    """The login, allowed to ask for tokens of that tenant too."""
    from azure.identity import DefaultAzureCredential

    with login_shown():
        found = DefaultAzureCredential(
            exclude_interactive_browser_credential=not sys.stderr.isatty(),
            additionally_allowed_tenants=[tenant],
        )
    return cast("TokenCredential", found)

"""The Azure OpenAI resources: one beside the workspace, one in another region, one in another
tenant; and what the control plane tells of them.

    account = accounts.of(azure)["homeportrehearsal"]

Base models are only names here, with the kinds of training that Azure has for them.
"""

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from emulator.azure import Azure
from emulator.http import ARM, Refusal, Reply, Request, Route
from emulator.store import Store, now
from emulator.tenants import ABROAD, ABROAD_SUBSCRIPTION

PROVIDER = r"Microsoft\.CognitiveServices"
SUBSCRIPTION = r"/subscriptions/[^/]+"
GROUP = rf"{SUBSCRIPTION}/resourceGroups/[^/]+"
ACCOUNT = rf"(?P<account_id>{GROUP}/providers/{PROVIDER}/accounts/(?P<account>[^/]+))"
"""Path pattern of a resource's ARM id."""

REGIONAL = ("standard", "globalstandard", "developertier")
MODELS: dict[str, tuple[str, ...]] = {
    "gpt-4.1-2025-04-14": REGIONAL,
    "gpt-4.1-mini-2025-04-14": REGIONAL,
    "gpt-4.1-nano-2025-04-14": REGIONAL,
    "gpt-4o-2024-08-06": REGIONAL,
    "gpt-4o-mini-2024-07-18": REGIONAL,
    "gpt-oss-20b": ("globalstandard",),
}
"""Base models, and their kinds of training in lower case (Azure's fine-tuning guide, 2025-10)."""


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A fine-tuned model or checkpoint, which can be deployed."""

    name: str
    folder: Path


@dataclass(slots=True, kw_only=True)
class Account:
    """One resource, with what lies in its data plane."""

    name: str
    group: str
    """ARM id of its resource group."""
    location: str
    tenant: str
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    """files.StoredFile by id."""
    uploads: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, Any] = field(default_factory=dict)
    """jobs.Job by id, oldest first."""
    models: dict[str, TunedModel] = field(default_factory=dict)
    """By every name that a deployment may ask for."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held by the one job that trains."""

    @property
    def arm_id(self) -> str:
        return f"{self.group}/providers/Microsoft.CognitiveServices/accounts/{self.name}"

    @property
    def endpoint(self) -> str:
        return f"https://{self.name}.openai.azure.com/"


_accounts: WeakKeyDictionary[Store, dict[str, Account]] = WeakKeyDictionary()


def of(azure: Azure) -> dict[str, Account]:
    """The resources of this Azure by their names, which are lower case."""
    return _accounts[azure.store]


def found(azure: Azure) -> None:
    """Make the resources, unless they are there."""
    if azure.store in _accounts:
        return
    settings = azure.settings
    subscription = f"/subscriptions/{settings.subscription}"
    places = (
        ("homeportrehearsal", settings.group_id, settings.location, settings.tenant),
        ("homeportelsewhere", f"{subscription}/resourceGroups/elsewhere", "swedencentral", ""),
        (
            "homeportabroad",
            f"/subscriptions/{ABROAD_SUBSCRIPTION}/resourceGroups/abroad",
            "northcentralus",
            ABROAD,
        ),
    )
    made = [
        Account(
            name=name,
            group=group,
            location=location,
            tenant=tenant or settings.tenant,
            folder=settings.folder / "openai" / name,
            keys={"key1": secrets.token_hex(16), "key2": secrets.token_hex(16)},
        )
        for name, group, location, tenant in places
    ]
    _accounts[azure.store] = {account.name: account for account in made}
    for account in made:
        azure.store.put(account.arm_id, _resource(account))


def _resource(account: Account) -> dict[str, Any]:
    return {
        "location": account.location,
        "kind": "OpenAI",
        "sku": {"name": "S0"},
        "tags": {},
        "properties": {
            "endpoint": account.endpoint,
            "customSubDomainName": account.name,
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
            "disableLocalAuth": False,
            "dateCreated": now(),
        },
    }


def asked(azure: Azure, groups: Mapping[str, str]) -> Account:
    """The resource that a request of the control plane names; Refusal 404 where there is none."""
    account = of(azure).get(groups["account"].lower())
    if account is None or account.arm_id.lower() != groups["account_id"].lower():
        group = groups["account_id"].split("/")[4]
        raise Refusal(
            404,
            "ResourceNotFound",
            f"The Resource 'Microsoft.CognitiveServices/accounts/{groups['account']}' under "
            f"resource group '{group}' was not found.",
        )
    return account


def get(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET a resource."""
    return Reply(200, dict(azure.store.get(asked(azure, groups).arm_id) or {}))


def listed(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET the resources of a group or of a subscription."""
    within = request.path.lower().partition("/providers/")[0] + "/"
    ids = [a.arm_id for a in of(azure).values() if a.arm_id.lower().startswith(within)]
    return Reply(200, {"value": [azure.store.get(i) for i in ids]})


def list_keys(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST listKeys."""
    return Reply(200, dict(asked(azure, groups).keys))


def models(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET the models that a resource can train or deploy."""
    account = asked(azure, groups)
    tuned = [{"name": name, "version": "1"} for name in account.models]
    base = [
        {"name": name.rsplit("-", 3)[0], "version": name[-10:]}
        for name in MODELS
        if name[-10:-6].isdigit()
    ]
    described = {
        "format": "OpenAI",
        "capabilities": {"chatCompletion": "true", "fineTune": "true"},
        "skus": [{"name": "Standard", "usageName": "OpenAI.Standard.finetuned"}],
        "lifecycleStatus": "GenerallyAvailable",
    }
    return Reply(200, {"value": [{**described, **model} for model in base + tuned]})


def usages(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET the usages: quota is not counted here."""
    asked(azure, groups)
    return Reply(200, {"value": []})


def routes(azure: Azure) -> list[Route]:
    accounts = rf"/providers/{PROVIDER}/accounts"
    return [
        Route("GET", ARM, ACCOUNT, partial(get, azure)),
        Route("GET", ARM, rf"({GROUP}|{SUBSCRIPTION}){accounts}", partial(listed, azure)),
        Route("POST", ARM, rf"{ACCOUNT}/listKeys", partial(list_keys, azure)),
        Route("GET", ARM, rf"{ACCOUNT}/models", partial(models, azure)),
        Route("GET", ARM, rf"{ACCOUNT}/usages", partial(usages, azure)),
    ]

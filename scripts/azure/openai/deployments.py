"""Deployments of fine-tuned models: made by the management API, ready by the data plane's word.

    put(account, "azure-openai-ja-666ff6-1a2b3c", Wanted(model=…, sku="Standard", capacity=1))
    wait(account, name)
    ready(service, name)

In the model's own resource, in another region or subscription (`source`), and in another tenant
(`sourceAccount`, and a token of the source's tenant in a header of its own). A deployment bills by
the hour until it is deleted; idle for 15 days, Azure deletes it by itself.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scripts.azure import tags as ours
from scripts.azure.openai.accounts import API, Account, bearer
from scripts.azure.openai.client import call
from scripts.azure.retry import NotFound, Refused
from scripts.azure.texts import moment
from scripts.console import say
from scripts.errors import CloudError

if TYPE_CHECKING:
    from openai import OpenAI

AUXILIARY = "x-ms-authorization-auxiliary"
"""Bears the token of the model's own tenant."""
SINCE = "homeport-serves-since"
"""Tag: when it was made the one that is asked, in UTC."""
MODEL_VERSION = "1"
"""Of every fine-tuned model."""
SKUS = {"Standard": "standard", "DeveloperTier": "developertier"}
"""As Microsoft's guide writes them; others are written as in the recipe."""
LOOK_SECONDS = 5.0
MADE_SECONDS = 3600.0
READY_SECONDS = 1800.0
TEMPERATURE = 0
"""The same question gets the same answer."""
FAILED = ("Failed", "Canceled")
"""States in which a deployment stays: it is deleted before it is made again."""
NOT_YET = ("DeploymentNotReady", "DeploymentNotFound")
"""What the data plane answers for minutes after ARM has said Succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be served."""

    model: str
    """The fine-tuned model's name, or a checkpoint's."""
    sku: str
    capacity: int
    source: Account | None = None
    """The resource that trained it, where that is another."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment of a resource."""

    name: str
    account: str
    """Name of its resource."""
    account_id: str
    model: str
    sku: str
    capacity: int
    state: str
    created: datetime | None
    tags: Mapping[str, str]

    @property
    def ours(self) -> bool:
        return ours.ours(self.tags)

    @property
    def tuned(self) -> bool:
        """Whether it serves a fine-tuned model, which bills by the hour."""
        return is_tuned(self.model)

    @property
    def since(self) -> str:
        """Orders the deployments of a recipe: the last one is asked."""
        created = self.created.isoformat() if self.created else ""
        return self.tags.get(SINCE, "") or created


def is_tuned(model: str) -> bool:
    """Whether the name is one of a fine-tuned model or a checkpoint."""
    return ".ft-" in model or model.startswith(("ftchkpt-", "ft:"))


def body(account: Account, wanted: Wanted) -> dict[str, Any]:
    """The request's body; across tenants exactly the fields that Microsoft's guide has."""
    model = {"format": "OpenAI", "name": wanted.model, "version": MODEL_VERSION}
    if wanted.source:
        model["sourceAccount" if account.tenant else "source"] = wanted.source.id
    sku = {"name": SKUS.get(wanted.sku, wanted.sku), "capacity": wanted.capacity}
    made: dict[str, Any] = {"sku": sku, "properties": {"model": model}}
    if wanted.tags and not account.tenant:
        made["tags"] = dict(wanted.tags)
    return made


def headers(account: Account, wanted: Wanted) -> dict[str, str]:
    """What the request needs besides the token of the resource's own tenant."""
    if not (wanted.source and account.tenant):
        return {}
    return {AUXILIARY: f"Bearer {bearer(wanted.source)}"}


def put(account: Account, name: str, wanted: Wanted) -> None:
    """Ask for the deployment; that it is asked for twice does no harm."""
    try:
        account.rest.put(
            f"{account.id}/deployments/{name}",
            body(account, wanted),
            API,
            headers=headers(account, wanted),
        )
    except Refused as error:
        if "quota" in f"{error.code} {error}".casefold():
            raise CloudError(
                f"{error} Next: lower cloud.openai.capacity, delete a deployment (make "
                "cloud-status, make cloud-down), or choose another cloud.openai.sku."
            ) from error
        raise


def find(account: Account, name: str) -> Deployment | None:
    """The deployment; None where there is none."""
    try:
        found = account.rest.get(f"{account.id}/deployments/{name}", API)
    except NotFound:
        return None
    return _deployment(account, found)


def listed(account: Account) -> list[Deployment]:
    """All of the resource."""
    rows = account.rest.all(f"{account.id}/deployments", API)
    return [_deployment(account, row) for row in rows]


def of_recipe(account: Account, base: str) -> list[Deployment]:
    """Those whose names begin with the recipe's, the one that is asked last."""
    found = [each for each in listed(account) if each.name.startswith(f"{base}-")]
    return sorted(found, key=lambda each: each.since)


def wait(account: Account, name: str, *, sleep: Callable[[float], None] = time.sleep) -> Deployment:
    """Until ARM calls it made; CloudError where it fails."""
    end, state = time.monotonic() + MADE_SECONDS, ""
    while True:
        found = find(account, name)
        if found is None:
            raise CloudError(f"deployment {name} of {account.name} is gone while it was made.")
        if found.state != state:
            state = found.state
            say(f"deploy: {account.name}/{name} {state}")
        if state == "Succeeded":
            return found
        if state in FAILED:
            raise CloudError(
                f"deployment {name} of {account.name} {state}: Azure OpenAI does not say why. It "
                "may bill: make cloud-down deletes it, make cloud-deploy again makes it anew."
            )
        if time.monotonic() > end:
            raise CloudError(
                f"deployment {name} of {account.name} is {state} after "
                f"{MADE_SECONDS / 60:.0f} min: the same command again goes on waiting."
            )
        sleep(LOOK_SECONDS)


def ready(
    service: "OpenAI",
    name: str,
    messages: list[dict[str, str]],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Ask until it answers; the answer. ARM's Succeeded comes before that."""
    end, told = time.monotonic() + READY_SECONDS, False
    while True:
        try:
            return ask(service, name, messages)
        except Refused as error:
            if error.code not in NOT_YET and error.status not in (404, 503):
                raise
            if time.monotonic() > end:
                raise CloudError(
                    f"deployment {name} does not answer after {READY_SECONDS / 60:.0f} min "
                    f"({error.code or error.status}); it bills: make cloud-down, or the same "
                    "command again to go on waiting."
                ) from error
            if not told:
                say(f"deploy: {name} is made, but does not answer yet ({error.code})")
                told = True
            sleep(LOOK_SECONDS)


def ask(service: "OpenAI", name: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    """The answer to the messages as JSON."""
    given: Any = messages
    found = call(
        f"ask {name}",
        lambda: service.chat.completions.create(
            model=name, messages=given, temperature=TEMPERATURE
        ),
    )
    return dict(found.model_dump(mode="json", exclude_none=True))


def delete(account: Account, name: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Delete it and wait until it is gone; the model stays."""
    account.rest.delete(f"{account.id}/deployments/{name}", API)
    end = time.monotonic() + MADE_SECONDS
    while find(account, name) is not None:
        if time.monotonic() > end:
            raise CloudError(f"deployment {name} of {account.name} is not gone: delete it again.")
        sleep(LOOK_SECONDS)


def _deployment(account: Account, found: dict[str, Any]) -> Deployment:
    properties, sku = found["properties"], found.get("sku") or {}
    return Deployment(
        name=found["name"],
        account=account.name,
        account_id=account.id,
        model=properties["model"]["name"],
        sku=str(sku.get("name", "")),
        capacity=int(sku.get("capacity") or 0),
        state=str(properties.get("provisioningState", "")),
        created=moment((found.get("systemData") or {}).get("createdAt")),
        tags=found.get("tags") or {},
    )

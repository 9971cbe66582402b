"""Deployments of fine-tuned models by the control plane, each with a server of its own.

A deployment names a model or checkpoint of its own resource, of another one (`source`), or of one
in another tenant (`sourceAccount`, with a token of that tenant in the auxiliary header). It is
`Creating` until the server answers, and even then not ready at the first request: so does Azure.
"""

import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from emulator import tuning
from emulator.azure import Azure
from emulator.http import ARM, Refusal, Reply, Request, Route
from emulator.openai import accounts
from emulator.openai.accounts import ACCOUNT, PROVIDER, SUBSCRIPTION, Account, TunedModel
from emulator.store import Store
from emulator.tuning import Served, TuningCanceled, TuningError

SKUS = ("standard", "globalstandard", "datazonestandard", "developertier")
AUXILIARY = "x-ms-authorization-auxiliary"
CONTROL_AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")
NOT_READY_SECONDS = 1.0
"""That a deployment still refuses after the first request that it got."""
RETRY = {"Retry-After": "1"}


@dataclass(slots=True)
class Hosting:
    """What runs for one deployment."""

    model: TunedModel
    canceled: threading.Event = field(default_factory=threading.Event)
    served: Served | None = None
    asked: float | None = None
    """When the first request came, by the monotonic clock."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ready(self) -> bool:
        """It answers. Asking begins the time in which it still does not."""
        if self.served is None:
            return False
        with self._lock:
            self.asked = self.asked or time.monotonic()
            return time.monotonic() - self.asked >= NOT_READY_SECONDS

    def keep(self, served: Served) -> bool:
        """Take the server over, unless the deployment has gone meanwhile."""
        with self._lock:
            if not self.canceled.is_set():
                self.served = served
                return True
        served.stop()
        return False

    def stop(self) -> None:
        self.canceled.set()
        with self._lock:
            served, self.served = self.served, None
        if served:
            served.stop()


_hostings: WeakKeyDictionary[Store, dict[str, Hosting]] = WeakKeyDictionary()
_deletions: dict[str, threading.Event] = {}


def hosting(azure: Azure, arm_id: str) -> Hosting | None:
    """What runs for the deployment."""
    return _hostings.get(azure.store, {}).get(arm_id.lower())


def put(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """PUT: made, or changed to another model or capacity."""
    account, given = accounts.asked(azure, groups), request.json()
    sku, properties = given.get("sku") or {}, given.get("properties") or {}
    model = _model(azure, account, request, properties.get("model") or {})
    if str(sku.get("name")).lower() not in SKUS:
        raise Refusal(
            400,
            "InvalidResourceProperties",
            f"The specified SKU '{sku.get('name')}' for model '{model.name}' is not supported in "
            f"this region '{account.location}'.",
        )
    capacity = int(sku.get("capacity") or 1)
    if fault := azure.faults.take("quota", path=request.path):
        sentence = fault.cause or (
            f"This operation require {capacity} new capacity in quota Tokens Per Minute "
            "(thousands), which is bigger than the current available capacity 0."
        )
        raise Refusal(400, "InsufficientQuota", sentence)
    before, running = azure.store.get(request.path), hosting(azure, request.path)
    same = running is not None and before is not None and running.model == model
    state = before["properties"]["provisioningState"] if before and same else "Creating"
    kept = {
        "sku": {**sku, "capacity": capacity},
        "properties": {
            "versionUpgradeOption": "NoAutoUpgrade",
            **properties,
            "currentCapacity": capacity,
            "capabilities": {"chatCompletion": "true"},
            "rateLimits": [
                {"key": "request", "renewalPeriod": 10, "count": capacity},
                {"key": "token", "renewalPeriod": 60, "count": capacity * 1000},
            ],
            "provisioningState": state,
        },
    }
    shown = azure.store.put(request.path, {**kept, "tags": given.get("tags") or {}})
    if not same:
        _begin(azure, request.path, model)
    return Reply(200 if before else 201, shown, dict(RETRY))


def patch(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """PATCH of the capacity and tags."""
    accounts.asked(azure, groups)
    given = request.json()
    _existing(azure, request.path)
    with azure.store.changed(request.path) as resource:
        resource["sku"] |= given.get("sku") or {}
        resource["tags"] |= given.get("tags") or {}
        resource["properties"]["currentCapacity"] = resource["sku"]["capacity"]
    return Reply(200, _existing(azure, request.path))


def get(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET a deployment."""
    accounts.asked(azure, groups)
    return Reply(200, _existing(azure, request.path), dict(RETRY))


def listed(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET the deployments of a resource."""
    accounts.asked(azure, groups)
    return Reply(200, {"value": azure.store.children(request.path)})


def delete(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """DELETE by a long-running operation; the model stays."""
    account = accounts.asked(azure, groups)
    if azure.store.get(request.path) is None:
        return Reply(204)
    with azure.store.changed(request.path) as resource:
        resource["properties"]["provisioningState"] = "Deleting"
    name, done = str(uuid.uuid4()), threading.Event()
    _deletions[name] = done

    def remove() -> None:
        running = _hostings.get(azure.store, {}).pop(request.path.lower(), None)
        try:
            if running:
                running.stop()
        except Exception:
            azure.journal.problem(f"deleting {request.path}: {traceback.format_exc()}")
        azure.store.delete(request.path)
        done.set()

    threading.Thread(target=remove, name=name, daemon=True).start()
    subscription = "/".join(account.group.split("/")[:3])
    location = (
        f"https://management.azure.com{subscription}/providers/Microsoft.CognitiveServices"
        f"/locations/{account.location}/operationResults/{name}?api-version={request.api_version}"
    )
    return Reply(202, None, {"Location": location, **RETRY})


def deletion(azure: Azure, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET the result of a deletion: 202 until it is done."""
    done = _deletions.get(groups["operation"])
    if done is None:
        raise Refusal(404, "NotFound", f"There is no operation {groups['operation']}.")
    here = f"https://management.azure.com{request.path}?api-version={request.api_version}"
    return Reply(200) if done.is_set() else Reply(202, None, {"Location": here, **RETRY})


def close(azure: Azure) -> None:
    """End all servers."""
    hostings = _hostings.pop(azure.store, {}).values()
    threads = [threading.Thread(target=one.stop, daemon=True) for one in hostings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _model(
    azure: Azure, account: Account, request: Request, wanted: Mapping[str, Any]
) -> TunedModel:
    """The fine-tuned model or checkpoint that is to be deployed."""
    source_id = str(wanted.get("sourceAccount") or wanted.get("source") or account.arm_id)
    every = accounts.of(azure).values()
    source = next((a for a in every if a.arm_id.lower() == source_id.lower()), None)
    if source is None:
        sentence = f"The source account '{source_id}' was not found."
        raise Refusal(400, "InvalidResourceProperties", sentence)
    if source.tenant != account.tenant:
        _require_source_tenant(azure, account, source, request, wanted)
    model = source.models.get(str(wanted.get("name")))
    if wanted.get("format") != "OpenAI" or model is None:
        described = ", ".join(
            f"{title}:{wanted.get(key)}"
            for title, key in (("Format", "format"), ("Name", "name"), ("Version", "version"))
        )
        raise Refusal(
            400,
            "DeploymentModelNotSupported",
            f"The model '{described}' is not supported: the account {source.name} has no such "
            "fine-tuned model, and only these are deployed in a rehearsal.",
        )
    return model


def _require_source_tenant(
    azure: Azure, account: Account, source: Account, request: Request, wanted: Mapping[str, Any]
) -> None:
    """Refusal 403 unless `sourceAccount` names the source and a token of its tenant is there."""
    for given in request.headers.get(AUXILIARY, "").split(","):
        scheme, _, token = given.strip().partition(" ")
        try:
            claims = azure.tokens.check(token, *CONTROL_AUDIENCES) if token else {}
        except ValueError:
            continue
        named = bool(wanted.get("sourceAccount"))
        if scheme.lower() == "bearer" and claims.get("tid") == source.tenant and named:
            return
    raise Refusal(
        403,
        "LinkedAuthorizationFailed",
        "The client has permission to perform action "
        f"'Microsoft.CognitiveServices/accounts/deployments/write' on scope '{request.path}', "
        f"however the current tenant '{account.tenant}' is not authorized to access linked "
        f"subscription '{source.group.split('/')[2]}'.",
    )


def _begin(azure: Azure, arm_id: str, model: TunedModel) -> None:
    """Bring a server up in the background; what served before ends when it is there."""
    hostings = _hostings.setdefault(azure.store, {})
    before = hostings.pop(arm_id.lower(), None)
    if before:
        before.stop()
    new = hostings[arm_id.lower()] = Hosting(model)
    unique = uuid.uuid4().hex[:6]
    name = f"openai-{arm_id.rpartition('/')[2][:24].lower()}-{unique}"

    def bring_up() -> None:
        try:
            if fault := azure.faults.take("slow", path=arm_id):
                time.sleep(fault.seconds)
            if azure.faults.take("failed_provisioning", path=arm_id):
                raise TuningError("A fault that was asked for.")
            served = tuning.serve(azure, name, model.folder, canceled=new.canceled)
            if new.keep(served):
                _settle(azure, arm_id, "Succeeded")
        except TuningCanceled:
            return
        except TuningError:
            _settle(azure, arm_id, "Failed")
        except Exception:
            azure.journal.problem(f"deployment {arm_id}: {traceback.format_exc()}")
            _settle(azure, arm_id, "Failed")

    threading.Thread(target=bring_up, name=name, daemon=True).start()


def _settle(azure: Azure, arm_id: str, state: str) -> None:
    try:
        with azure.store.changed(arm_id) as resource:
            if resource["properties"]["provisioningState"] == "Creating":
                resource["properties"]["provisioningState"] = state
    except KeyError:
        return  # it was deleted meanwhile


def _existing(azure: Azure, arm_id: str) -> dict[str, Any]:
    found = azure.store.get(arm_id)
    if found is None:
        account, name = arm_id.split("/")[-3], arm_id.rpartition("/")[2]
        raise Refusal(
            404,
            "ResourceNotFound",
            f"The Resource 'Microsoft.CognitiveServices/accounts/{account}/deployments/{name}' was "
            "not found.",
        )
    return found


def routes(azure: Azure) -> list[Route]:
    every = rf"{ACCOUNT}/deployments"
    one = rf"{every}/(?P<deployment>[^/]+)"
    results = rf"{SUBSCRIPTION}/providers/{PROVIDER}/locations/[^/]+/operationResults"
    return [
        Route("PUT", ARM, one, partial(put, azure)),
        Route("PATCH", ARM, one, partial(patch, azure)),
        Route("GET", ARM, one, partial(get, azure)),
        Route("DELETE", ARM, one, partial(delete, azure)),
        Route("GET", ARM, every, partial(listed, azure)),
        Route("GET", ARM, rf"{results}/(?P<operation>[^/]+)", partial(deletion, azure)),
    ]

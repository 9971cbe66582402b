"""Registries: catalogs of models and pipeline components that all workspaces share.

    find(azure, "azureml://registries/azureml/models/Phi-4/versions/8")    -> the resource, or None

A client asks the region where a registry lives (discovery), then that region for models and
components, by version or newest first. What is there stands in registries.json, whose source are
Azure's own published assets: tags and properties of the models; inputs, outputs and steps of the
components. The bytes of the models are not here.
"""

import copy
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.assets import not_found
from emulator.azure import Azure
from emulator.http import API, Refusal, Reply, Request, Route
from emulator.store import Resource

FILE = Path(__file__).with_name("registries.json")
KINDS = ("models", "components")
PUBLISHED = "2026-07-23T00:00:00+00:00"
"""When the file's facts were read; the times of single assets are not published."""
ASSET = re.compile(
    r"azureml://registries/(?P<registry>[^/]+)/(?P<kind>models|components)/(?P<name>[^/]+)"
    r"/(?:versions/(?P<version>[^/]+)|labels/latest)"
)
"""Id of an asset; the client resolves labels by itself, and the service takes them too."""
GROUP = "registries"
"""Resource group that discovery names; the registries themselves belong to Microsoft."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One version of a model or a component."""

    registry: str
    kind: str
    name: str
    facts: Mapping[str, Any]

    @property
    def version(self) -> str:
        return str(self.facts["version"])

    @property
    def archived(self) -> bool:
        return bool(self.facts.get("archived"))


def find(azure: Azure, asset_id: str) -> Resource | None:
    """What an `azureml://registries/…` id names, as a GET of it answers."""
    found = ASSET.fullmatch(asset_id.lower())
    if not found:
        return None
    asked = (found["registry"], found["kind"], found["name"])
    for asset in _assets():
        named = (asset.registry, asset.kind, asset.name.lower())
        if named == asked and found["version"] in (None, asset.version):
            return _version(asset)
    return None


class Registries:
    """The routes of all registries."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    def discovery(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET discovery: where the registry lives."""
        name, settings = groups["registry"], self._azure.settings
        if name.lower() not in _names():
            raise Refusal(404, "UserError", f"Registry {name} could not be found.")
        body = {
            "registryName": name,
            "primaryRegion": settings.location,
            "primaryRegionResourceProviderUri": f"{settings.api}/",
            "subscriptionId": settings.subscription,
            "resourceGroup": GROUP,
            "regions": [settings.location],
            "registryFqdns": {settings.location: {"resourceProviderUri": settings.api}},
        }
        return Reply(200, body)

    def containers(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET {kind}: all names; archived ones only where listViewType asks for them."""
        view = request.query.get("listViewType", "ActiveOnly")
        assets = [a for a in _of(groups) if _viewed(a, view)]
        return Reply(200, {"value": [_container(a) for a in assets]})

    def container(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET {kind}/{name}."""
        return Reply(200, _container(_named(request, groups)[0]))

    def versions(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET {kind}/{name}/versions: newest first.

        An archived one is left out only where listViewType says so: no recording shows what Azure
        does without it, and its samples get retired models by the label `latest`.
        """
        view = request.query.get("listViewType", "All")
        listed = [_version(a) for a in _named(request, groups) if _viewed(a, view)]
        return Reply(200, {"value": listed[: int(request.query.get("$top", len(listed)))]})

    def version(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET {kind}/{name}/versions/{version}."""
        for asset in _named(request, groups):
            if asset.version == groups["version"]:
                return Reply(200, _version(asset))
        raise not_found(request.path)


@functools.cache
def _assets() -> tuple[Asset, ...]:
    """All of the file; of one name, the newest first."""
    registries = json.loads(FILE.read_bytes())["registries"]
    return tuple(
        Asset(registry, kind, name, facts)
        for registry, kinds in registries.items()
        for kind in KINDS
        for name, facts in kinds.get(kind, {}).items()
    )


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(json.loads(FILE.read_bytes())["registries"])


def _of(groups: Mapping[str, str]) -> list[Asset]:
    where = (groups["registry"].lower(), groups["kind"].lower())
    return [asset for asset in _assets() if (asset.registry, asset.kind) == where]


def _named(request: Request, groups: Mapping[str, str]) -> list[Asset]:
    found = [asset for asset in _of(groups) if asset.name.lower() == groups["name"].lower()]
    if not found:
        raise not_found(request.path)
    return found


def _viewed(asset: Asset, view: str) -> bool:
    return view.lower() == "all" or asset.archived == (view.lower() == "archivedonly")


def _container(asset: Asset) -> Resource:
    properties = {
        "isArchived": asset.archived,
        "latestVersion": asset.version,
        "nextVersion": None,
        "tags": {},
        "properties": {},
    }
    return _resource(asset, f"{asset.kind}/{asset.name}", asset.name, properties)


def _version(asset: Asset) -> Resource:
    facts = copy.deepcopy(dict(asset.facts))
    properties: dict[str, Any] = {
        "description": facts.get("description"),
        # lists and objects come as Python writes them, which Azure's samples read by literal_eval
        "tags": {name: str(value) for name, value in facts.get("tags", {}).items()},
        "properties": facts.get("properties", {}),
        "isAnonymous": False,
        "isArchived": asset.archived,
    }
    if asset.kind == "models":
        account = f"{asset.registry.replace('-', '')}models"
        flavors: dict[str, Any]
        flavors = {"python_function": {"data": {}}} if facts["type"] == "mlflow_model" else {}
        properties |= {
            "flavors": flavors,
            "modelType": facts["type"],
            "modelUri": f"https://{account}.blob.core.windows.net/{asset.name}/{asset.version}",
        }
    else:
        properties["componentSpec"] = _spec(asset.name, facts)
    path = f"{asset.kind}/{asset.name}/versions/{asset.version}"
    return _resource(asset, path, asset.version, properties, "/versions")


def _spec(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The component as its author wrote it, without the steps' own inputs."""
    return {
        "name": name,
        "version": facts["version"],
        "display_name": facts["display_name"],
        "type": "pipeline",
        "is_deterministic": True,
        "tags": {},
        "_source": "YAML.COMPONENT",
        "inputs": facts["inputs"],
        "outputs": facts["outputs"],
        "jobs": {
            step: {"type": "command", **described} for step, described in facts["jobs"].items()
        },
    }


def _resource(
    asset: Asset, path: str, name: str, properties: dict[str, Any], more: str = ""
) -> Resource:
    return {
        "id": f"azureml://registries/{asset.registry}/{path}",
        "name": name,
        "type": f"Microsoft.MachineLearningServices/registries/{asset.kind}{more}",
        "properties": properties,
        "systemData": {
            "createdAt": PUBLISHED,
            "createdBy": "Microsoft",
            "createdByType": "User",
            "lastModifiedAt": PUBLISHED,
            "lastModifiedBy": "Microsoft",
            "lastModifiedByType": "User",
        },
    }


def routes(azure: Azure) -> list[Route]:
    """Discovery, models and components of every registry."""
    registries = Registries(azure)
    every = (
        r"/mferp/managementfrontend/subscriptions/[^/]+/resourceGroups/[^/]+/providers"
        r"/Microsoft\.MachineLearningServices/registries/(?P<registry>[^/]+)"
        rf"/(?P<kind>{'|'.join(KINDS)})"
    )
    name = rf"{every}/(?P<name>[^/]+)"
    discovery = r"/registrymanagement/v1\.0/registries/(?P<registry>[^/]+)/discovery"
    return [
        Route("GET", API, discovery, registries.discovery),
        Route("GET", API, every, registries.containers),
        Route("GET", API, name, registries.container),
        Route("GET", API, rf"{name}/versions", registries.versions),
        Route("GET", API, rf"{name}/versions/(?P<version>[^/]+)", registries.version),
    ]

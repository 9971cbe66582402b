"""Models and components of Azure ML's registries, by the SDK's own client.

    place = parse("azureml/Phi-3-mini-4k-instruct@latest")
    entity = model(cloud, place)
    made = component(cloud, "chat_completion_pipeline")

A registry is shared by all workspaces; `azureml` is Microsoft's. It changes nothing.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.azure import retry
from scripts.azure.client import Cloud, NotFound
from scripts.errors import UsageError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

COMPONENTS = "azureml"
"""Where the fine-tuning pipelines are, whichever registry the model is in."""
LATEST = "latest"
PLACE = re.compile(
    r"(?P<registry>[A-Za-z0-9][-A-Za-z0-9]*)/(?P<name>[A-Za-z0-9][-_.A-Za-z0-9]*)"
    r"(?:@(?P<label>[-_.A-Za-z0-9]+)|:(?P<version>[-_.A-Za-z0-9]+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a model stands: by its version, else by a label."""

    registry: str
    name: str
    label: str = LATEST
    version: str = ""

    def __str__(self) -> str:
        at = f":{self.version}" if self.version else f"@{self.label}"
        return f"{self.registry}/{self.name}{at}"


def parse(text: str) -> Place:
    """A recipe's cloud.model; UsageError where it is no place in a registry."""
    found = PLACE.fullmatch(text)
    if not found:
        raise UsageError(
            f"cloud.model is {text!r}: name a model of a registry, as registry/name, "
            "registry/name@label or registry/name:version."
        )
    return Place(
        registry=found["registry"],
        name=found["name"],
        label="" if found["version"] else found["label"] or LATEST,
        version=found["version"] or "",
    )


def client(cloud: Cloud, registry: str) -> "MLClient":
    """The SDK's client of that registry; UsageError where there is none of that name."""
    from azure.ai.ml import MLClient

    def made() -> MLClient:
        return MLClient(
            cloud.credential, registry_name=registry, enable_telemetry=False, show_progress=False
        )

    try:
        return retry.call(f"find registry {registry}", made)
    except NotFound:
        raise UsageError(
            f"there is no registry {registry}, or you may not read it: azureml, azureml-meta and "
            "azureml-openai-oss are Microsoft's."
        ) from None


def model(cloud: Cloud, place: Place) -> Any:
    """The model's entity, of a certain version; UsageError where the registry has none."""
    return _asset(client(cloud, place.registry).models, "model", place)


def component(cloud: Cloud, name: str, version: str = "") -> Any:
    """The component's entity; the newest one where no version is given."""
    label = "" if version else LATEST
    place = Place(registry=COMPONENTS, name=name, label=label, version=version)
    return _asset(client(cloud, COMPONENTS).components, "component", place)


def _asset(collection: Any, kind: str, place: Place) -> Any:
    from azure.ai.ml.exceptions import ValidationException
    from azure.core.exceptions import ResourceNotFoundError

    asked = {"version": place.version} if place.version else {"label": place.label}
    try:
        return retry.call(f"read {kind} {place}", lambda: collection.get(place.name, **asked))
    except (NotFound, ValidationException, ResourceNotFoundError) as error:
        raise UsageError(
            f"registry {place.registry} has no {kind} {str(place).partition('/')[2]} "
            f"({_line(error)}): see the model catalog in https://ml.azure.com, and correct the "
            "recipe's cloud.model."
        ) from None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}…"

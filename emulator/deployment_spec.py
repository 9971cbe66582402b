"""What a deployment resource asks for, read and checked: image, routes, model, code, limits.

An MLflow model may come without an environment and code: the service then brings its own image,
which is here our serve image.
"""

from dataclasses import dataclass, replace
from typing import Any

from emulator import online
from emulator.azure import Azure
from emulator.http import Refusal
from emulator.probes import ProbeSettings
from emulator.store import Resource

MODELS = "/var/azureml-app/azureml-models"
"""Where the service mounts models, unless the deployment's modelMountPath says otherwise."""
LONGEST_DELAY = 20.0
"""Before the first probe. On Azure it is as long as asked, ten minutes for a large model; the tiny
one is there within seconds."""
DEFAULT_ROUTES = {
    "livenessRoute": {"path": "/", "port": 5001},
    "readinessRoute": {"path": "/", "port": 5001},
    "scoringRoute": {"path": "/score", "port": 5001},
}
"""Of the Azure ML inference server, for an environment without inferenceConfig."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One deployment as it is to run."""

    image: str
    port: int
    scoring_path: str
    liveness: ProbeSettings
    readiness: ProbeSettings
    environment_variables: dict[str, str]
    model: str
    """ARM id of the model version; empty without a model."""
    models: str
    """Folder of the container in which NAME/VERSION of the model lies."""
    code: str
    """ARM id of the code version; empty without code."""
    script: str
    request_seconds: float
    concurrency: int
    """max_concurrent_requests_per_instance."""
    instances: int

    @property
    def in_flight(self) -> int:
        """Requests that may be under way at once; the next one gets 429."""
        return 2 * self.concurrency * self.instances

    def differs_in_size_only(self, other: "Spec") -> bool:
        return replace(self, instances=other.instances) == other


def completed(properties: dict[str, Any]) -> dict[str, Any]:
    """The properties of a deployment as the service keeps them."""
    return {
        **properties,
        "model": properties.get("model"),
        "scaleSettings": properties.get("scaleSettings") or {"scaleType": "Default"},
        "requestSettings": online.with_request_defaults(properties.get("requestSettings")),
        "livenessProbe": online.with_probe_defaults(properties.get("livenessProbe")),
        "readinessProbe": online.with_probe_defaults(properties.get("readinessProbe")),
    }


def read(azure: Azure, resource: Resource) -> Spec:
    """The spec of a completed deployment resource; Refusal 400 where it cannot be, 501 where this
    Azure does not know how."""
    properties = resource["properties"]
    _refuse_unknown(azure, properties)
    if _is_mlflow(azure, properties):
        environment: dict[str, Any] = {"image": azure.settings.serve_image}
    else:
        environment = _asset(azure, properties.get("environmentId"), "environment")["properties"]
    routes = {**DEFAULT_ROUTES, **(environment.get("inferenceConfig") or {})}
    ports = {route["port"] for route in routes.values()}
    if len(ports) > 1:
        raise _unknown(azure, "routes of an environment on more than one port")
    limits = properties["requestSettings"]
    request_seconds = online.seconds(limits["requestTimeout"], "requestSettings.requestTimeout")
    if not 0 < request_seconds <= online.MAX_REQUEST_SECONDS:
        raise online.invalid(
            "The request timeout must be greater than 0 and at most 180000 milliseconds.",
            "RequestSettings.RequestTimeout",
        )
    concurrency = limits["maxConcurrentRequestsPerInstance"]
    if concurrency < 1:
        raise online.invalid(
            "The number of concurrent requests per instance must be greater than 0.",
            "RequestSettings.MaxConcurrentRequestsPerInstance",
        )
    code = properties.get("codeConfiguration") or {}
    if properties["model"]:
        _asset(azure, properties["model"], "model")
    if code:
        _asset(azure, code.get("codeId"), "code")
    return Spec(
        image=_image(environment),
        port=ports.pop(),
        scoring_path=routes["scoringRoute"]["path"],
        liveness=_probe(properties, "livenessProbe", routes, azure.settings.hurry),
        readiness=_probe(properties, "readinessProbe", routes, azure.settings.hurry),
        environment_variables=dict(properties.get("environmentVariables") or {}),
        model=properties["model"] or "",
        models=(properties.get("modelMountPath") or MODELS).rstrip("/"),
        code=code.get("codeId") or "",
        script=code.get("scoringScript") or "",
        request_seconds=request_seconds,
        concurrency=concurrency,
        instances=_instances(resource),
    )


def _is_mlflow(azure: Azure, properties: dict[str, Any]) -> bool:
    """Whether the service brings the environment: for an MLflow model that names none."""
    if properties.get("environmentId") or not properties["model"]:
        return False
    model = _asset(azure, properties["model"], "model")
    return str(model["properties"].get("modelType", "")).lower() == "mlflow_model"


def _image(environment: dict[str, Any]) -> str:
    """The image to run; empty where the service would have to build it first."""
    if environment.get("build") or environment.get("condaFile"):
        return ""
    return str(environment.get("image") or "")


def _instances(resource: Resource) -> int:
    count = (resource.get("sku") or {}).get("capacity")
    if not isinstance(count, int) or not 1 <= count <= online.MAX_INSTANCES:
        raise online.invalid(
            f"The instance count must be between 1 and {online.MAX_INSTANCES}; it is {count}.",
            "Sku.Capacity",
        )
    return count


def _probe(
    properties: dict[str, Any], name: str, routes: dict[str, Any], hurry: float
) -> ProbeSettings:
    route = routes[name.replace("Probe", "Route")]
    probe = ProbeSettings.of(properties[name], route["path"], name)
    return replace(probe, initial_delay=min(probe.initial_delay * hurry, LONGEST_DELAY))


def _asset(azure: Azure, arm_id: str | None, kind: str) -> Resource:
    """The version of an asset that the deployment names."""
    if str(arm_id).startswith("azureml://registries/"):
        raise _unknown(azure, f"a {kind} of a registry")
    found = azure.store.get(str(arm_id).removeprefix("azureml:"))
    if found is None:
        raise online.invalid(f"The {kind} '{arm_id}' was not found in the workspace.", kind)
    return found


def _refuse_unknown(azure: Azure, properties: dict[str, Any]) -> None:
    """No silent default for what would be different on Azure."""
    collector = properties.get("dataCollector")
    variables = (properties.get("environmentVariables") or {}).values()
    unknown = {
        "a compute other than managed": properties.get("endpointComputeType") != "Managed",
        "scaling by load": properties["scaleSettings"]["scaleType"] != "Default",
        "the collection of payloads": bool(collector),
        "a deployment without egress": properties.get("egressPublicNetworkAccess") == "Disabled",
        "a secret in an environment variable": any("${{" in str(value) for value in variables),
    }
    for what, asked in unknown.items():
        if asked:
            raise _unknown(azure, what)


def _unknown(azure: Azure, what: str) -> Refusal:
    azure.journal.problem(f"a deployment asked for {what}, which this Azure does not know")
    return Refusal(501, "NotEmulated", f"This Azure does not know {what}.")

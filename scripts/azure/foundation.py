"""A foundation model of a registry: what it says of itself, and which machines may train it.

    model = read(cloud, recipe)                    # from the registry, by cloud.model
    notes = check_training(model, recipe, machine) # UsageError with the cheapest machine that does
    offline = known(recipe)                        # from azure/catalog.yml, without anybody asked

The registry's tags and properties outrank azure/catalog.yml, which knows the models of our recipes
and what no tag says (the size of the weights).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

import yaml

from scripts.azure import prices, registries, retry
from scripts.azure.prices import Instance
from scripts.azure.texts import money
from scripts.errors import UsageError
from scripts.settings import ROOT, relative
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud

CATALOG = ROOT / "azure/catalog.yml"
TASKS = {"chat": "chat-completion", "text": "text-generation"}
"""The catalog's word for cloud.task."""
UNSUPPORTED = ("standard_nc6", "standard_nc12", "standard_nc24", "standard_nc24r")
"""Machines with K80 GPUs, which the pipelines refuse whatever the model says."""
BYTES_PER_PARAMETER = 2
"""Weights in 16 bits."""
TRAIN_ROOM = 1.25
"""Weights, the adapter with its optimiser and activations, in one GPU: ZeRO-2 does not divide the
weights. A lower bound; long rows need more."""
SERVE_ROOM = 1.2
"""Weights and some room for the conversations, over all GPUs of the machine."""
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """A MinSkuSpec, `cores|gpus|memory|disk`: the least that a machine must have."""

    cores: int
    gpus: int
    memory_gib: float
    disk_gib: float
    """Told, but not checked: no table of ours says how large a machine's disk is."""

    def lacks(self, instance: Instance) -> str:
        """What the machine has too little of; empty where it will do."""
        has = (instance.cores, instance.gpus, instance.memory_gib)
        needs = (self.cores, self.gpus, self.memory_gib)
        units = ("cores", "GPUs", "GiB of memory")
        short = [
            f"{need:g} {unit} (it has {there:g})"
            for there, need, unit in zip(has, needs, units, strict=True)
            if there < need
        ]
        return " and ".join(short)


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What is known of a model before it is trained or served."""

    name: str
    registry: str
    version: str
    """Empty where only azure/catalog.yml was read."""
    kind: Literal["mlflow_model", "custom_model"] = "mlflow_model"
    """Type of the asset: a custom one goes to the pipelines' pytorch_model_path."""
    tasks: tuple[str, ...] | None = None
    """What it can be fine-tuned for: `chat-completion`, `text-generation`, …; None: not said."""
    train_on: tuple[str, ...] = ()
    """Machines that it may be trained on; empty: not said."""
    serve_on: tuple[str, ...] = ()
    train_minimum: Minimum | None = None
    serve_minimum: Minimum | None = None
    recommended: tuple[str, ...] = ()
    """Machines that its authors recommend for training."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Its `model_specific_defaults`: training parameters by a pipeline's names, and others."""
    license: str = ""
    billions: float = 0
    """Parameters; 0 where nobody has written them down."""
    retired: str = ""
    """ISO date from which it is no longer to be fine-tuned; empty: none is known."""
    archived: bool = False
    source: str = ""
    """Where this was read, and when."""

    @property
    def id(self) -> str:
        return f"azureml://registries/{self.registry}/models/{self.name}/versions/{self.version}"

    @property
    def input(self) -> str:
        """The pipelines' input that takes it."""
        return "mlflow_model_path" if self.kind == "mlflow_model" else "pytorch_model_path"

    def is_retired(self, today: date | None = None) -> bool:
        """Whether the day has come."""
        return (
            bool(self.retired) and (today or datetime.now(UTC).date()).isoformat() >= self.retired
        )


Use = Literal["train", "serve"]


def read(cloud: "Cloud", recipe: Recipe) -> Foundation:
    """The model that cloud.model names, as its registry knows it; UsageError where it is not."""
    place = registries.parse(recipe.cloud.model)
    return of_entity(registries.model(cloud, place), place.registry, known(recipe))


def known(recipe: Recipe) -> Foundation | None:
    """What azure/catalog.yml knows of cloud.model; None where it does not know it."""
    place = registries.parse(recipe.cloud.model)
    row = next(
        (
            row
            for name, row in _catalog().items()
            if name.casefold() == f"{place.registry}/{place.name}".casefold()
        ),
        None,
    )
    if row is None:
        return None
    return Foundation(
        name=place.name,
        registry=place.registry,
        version=place.version,
        kind=row["kind"],
        tasks=tuple(row["tasks"]),
        train_on=tuple(row.get("train_on", ())),
        serve_on=tuple(row.get("serve_on", ())),
        train_minimum=minimum(row.get("train_minimum", "")),
        serve_minimum=minimum(row.get("serve_minimum", "")),
        recommended=tuple(row.get("train_on", ())),
        defaults=row.get("defaults", {}),
        license=row["license"],
        billions=row["billions"],
        retired=row.get("retired", ""),
        archived=row.get("archived", False),
        source=f"{relative(CATALOG)}: {' '.join(row['read'].split())}",
    )


def names() -> tuple[str, ...]:
    """What azure/catalog.yml knows, each as `registry/name`."""
    return tuple(_catalog())


def of_entity(entity: Any, registry: str, base: Foundation | None = None) -> Foundation:
    """The SDK's entity of a model, over what is known of it otherwise."""
    tags = {str(key): str(value) for key, value in (entity.tags or {}).items()}
    properties = {str(key): str(value) for key, value in (entity.properties or {}).items()}
    said: dict[str, Any] = {
        "tasks": _listed(properties.get("finetuning-tasks", "")),
        "train_on": _listed(tags.get("finetune_compute_allow_list", "")),
        "serve_on": _listed(tags.get("inference_compute_allow_list", "")),
        "train_minimum": minimum(properties.get("finetune-min-sku-spec", "")),
        "serve_minimum": minimum(properties.get("inference-min-sku-spec", "")),
        "recommended": _listed(properties.get("finetune-recommended-sku", "")),
        "defaults": _mapping(tags.get("model_specific_defaults", "")),
        "license": tags.get("license", ""),
        "retired": tags.get("FinetuneRetirementDate", ""),
    }
    blank = Foundation(name=str(entity.name), registry=registry, version="")
    return dataclasses.replace(
        base or blank,
        name=str(entity.name),
        version=str(entity.version),
        kind="mlflow_model" if entity.type == "mlflow_model" else "custom_model",
        source=f"registry {registry}",
        **{key: value for key, value in said.items() if value},
    )


def minimum(text: str) -> Minimum | None:
    """A MinSkuSpec; None where there is none, or it is not of that form."""
    parts = text.split("|")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        return None
    cores, gpus, memory, disk = (int(part) for part in parts)
    return Minimum(cores=cores, gpus=gpus, memory_gib=memory, disk_gib=disk)


def machine(cloud: "Cloud | None", recipe: Recipe) -> Instance:
    """What is trained on: the cluster's machine where there is a cluster, else the recipe's.

    UsageError where the cluster is not in a state to run the job.
    """
    from scripts.azure.jobs import COMPUTES_API
    from scripts.azure.retry import NotFound

    settings = recipe.cloud
    if not cloud:
        return prices.find(settings.instance_type)
    if not settings.compute:
        return _listed_as(cloud, prices.find(settings.instance_type))
    try:
        found = cloud.rest.get(f"{cloud.workspace.id}/computes/{settings.compute}", COMPUTES_API)
    except NotFound:  # it is made with the recipe's machines
        return _listed_as(cloud, prices.find(settings.instance_type))
    properties = found["properties"]
    state = str(properties.get("provisioningState") or "Unknown")
    if state != "Succeeded":
        raise UsageError(
            f"cluster {settings.compute} is {state}, so nothing can run on it: az ml compute show "
            f"--name {settings.compute} says why; or name another one in cloud.compute."
        )
    own = properties.get("properties") or {}
    size = str(own.get("vmSize") or settings.instance_type)
    most = int((own.get("scaleSettings") or {}).get("maxNodeCount") or settings.nodes)
    if most < settings.nodes:
        raise UsageError(
            f"cluster {settings.compute} has at most {most} nodes, and the recipe wants "
            f"{settings.nodes}: set cloud.nodes, or make the cluster larger."
        )
    return _listed_as(cloud, prices.find(size))


def _listed_as(cloud: "Cloud", instance: Instance) -> Instance:
    """The machine with the GPUs that the workspace's region lists for its size."""
    sizes = retry.call("list the region's machines", lambda: list(cloud.ml.compute.list_sizes()))
    for size in sizes:
        if str(size.name).casefold() == instance.name.casefold() and size.gpus is not None:
            return dataclasses.replace(instance, gpus=int(size.gpus))
    return instance


def check_training(model: Foundation, recipe: Recipe, instance: Instance) -> tuple[str, ...]:
    """Notes for the plan; UsageError where the machine will not do, with the cheapest that does."""
    task = TASKS[recipe.cloud.task]
    if model.tasks is not None and task not in model.tasks:
        raise UsageError(
            f"{model.name} cannot be fine-tuned for {task}: its registry names "
            f"{', '.join(model.tasks) or 'no task'}; set cloud.task or cloud.model, or take "
            "cloud.route=command_job."
        )
    _refuse(model, recipe, instance, "train")
    notes = []
    if model.is_retired():
        notes.append(
            f"{model.name} is retired: since {model.retired} Microsoft does not vouch for its "
            "fine-tuning, so Azure may refuse the job; `make advise` names an open route"
        )
    elif model.retired:
        notes.append(f"{model.name} can be fine-tuned until {model.retired}")
    if not model.train_on and not model.train_minimum:
        notes.append(f"{model.name} does not say which machines may train it")
    return tuple(notes)


def check_serving(model: Foundation, recipe: Recipe) -> tuple[str, ...]:
    """The same for cloud.serve_instance_type."""
    _refuse(model, recipe, prices.find(recipe.cloud.serve_instance_type), "serve")
    if not model.serve_on and not model.serve_minimum:
        return (f"{model.name} does not say which machines may serve it",)
    return ()


def unfit(model: Foundation, instance: Instance, use: Use) -> str:
    """Why the machine will not do; empty where it will."""
    allowed = model.train_on if use == "train" else model.serve_on
    least = model.train_minimum if use == "train" else model.serve_minimum
    if instance.name.casefold() in UNSUPPORTED:
        return "its K80 GPUs are no longer supported"
    if use == "train" and not instance.gpus:
        return "it has no GPU"
    if allowed and instance.name.casefold() not in {name.casefold() for name in allowed}:
        return f"the model's registry allows only {', '.join(allowed)}"
    if least and (short := least.lacks(instance)):
        return f"the model needs {short}"
    needed = gpu_gib(model, use)
    there = instance.gpu_memory_gib * (1 if use == "train" else instance.gpus)
    if instance.gpus and needed > there:
        each = f"one {instance.gpu}" if use == "train" else f"{instance.gpus} x {instance.gpu}"
        return (
            f"{model.billions:g} billion parameters need about {needed:.0f} GiB of GPU memory, and "
            f"{each} has {there:g}"
        )
    return ""


def gpu_gib(model: Foundation, use: Use) -> float:
    """GPU memory that the weights need at least; 0 where their number is not known."""
    room = TRAIN_ROOM if use == "train" else SERVE_ROOM
    return model.billions * 1e9 * BYTES_PER_PARAMETER * room / GIB


def cheapest(model: Foundation, use: Use) -> Instance | None:
    """The cheapest machine with GPUs of the price table that would do."""
    fit = [
        instance
        for instance in prices.table().instances.values()
        if instance.gpus and instance.per_hour is not None and not unfit(model, instance, use)
    ]
    return min(fit, key=lambda instance: instance.per_hour or 0, default=None)


def _refuse(model: Foundation, recipe: Recipe, instance: Instance, use: Use) -> None:
    why = unfit(model, instance, use)
    if not why:
        return
    key = "instance_type" if use == "train" else "serve_instance_type"
    best = cheapest(model, use)
    if best:
        advice = f"the cheapest that does is {best.name} ({money(best.per_hour)} per hour)"
    else:
        advice = "no machine of azure/prices.yml does"
    where = f"cluster {recipe.cloud.compute}: " if use == "train" and recipe.cloud.compute else ""
    raise UsageError(
        f"{where}{instance.name} cannot {use} {model.name}: {why}; {advice}: set cloud.{key}."
    )


@functools.cache
def _catalog() -> Mapping[str, Any]:
    values = yaml.safe_load(CATALOG.read_text(encoding="utf-8"))
    rows: Mapping[str, Any] = values["models"]
    return rows


def _listed(text: str) -> tuple[str, ...]:
    """A tag's list: Python's or JSON's way of writing it, or names between commas."""
    value = _parsed(text)
    parts: Sequence[Any] = value if isinstance(value, list) else text.split(",")
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _mapping(text: str) -> dict[str, Any]:
    value = _parsed(text)
    return {str(key): one for key, one in value.items()} if isinstance(value, dict) else {}


def _parsed(text: str) -> Any:
    """YAML's flow form takes both Python's and JSON's lists and mappings."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None

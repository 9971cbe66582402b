"""What each of the four routes could make of a recipe: open or not, at what cost, without what.

    for verdict in judge(recipe, Facts()): …          # offline, by azure/catalog.yml and the prices
    take(recipe, verdicts)                            # the one that we would choose, and why

A recipe names one route; the others are judged as if it named them, with the model of the catalog
that its base is. Nothing here asks anybody: what a login tells stands in Facts (advice.py).
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scripts.azure import foundation, prices
from scripts.azure.foundation import Foundation
from scripts.azure.prices import Instance
from scripts.azure.quota import Quota
from scripts.azure.texts import hours, money
from scripts.errors import UsageError
from scripts.settings import ROOT
from train.recipe import Recipe

RouteName = Literal["command_job", "registry_pipeline", "finetuning_job", "azure_openai"]
ROUTES: tuple[RouteName, ...] = (
    "command_job",
    "registry_pipeline",
    "finetuning_job",
    "azure_openai",
)
State = Literal["open", "retired", "closed"]
"""retired: Azure may still take the job, and nobody vouches for it."""

OPENAI = {
    "gpt-4o-mini": "",
    "gpt-4o": "",
    "gpt-4.1": "",
    "gpt-4.1-mini": "",
    "gpt-4.1-nano": "",
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "Ministral-3B": "mistralai/Ministral-3B",
    "Llama-3.3-70B": "meta-llama/Llama-3.3-70B-Instruct",
    "Qwen-3-32B": "Qwen/Qwen3-32B",
}
"""What Azure OpenAI fine-tunes on answers, and the hub's name where it is an open model. Azure's
guide "Models and regions for fine-tuning" and microsoft/azure-skills at 1a03acf, read 2026-11-22;
the resource itself knows better."""
OPENAI_READ = "2026-11-22"

LACKS: Mapping[RouteName, tuple[str, ...]] = {
    "command_job": ("a machine and its quota are yours to have",),
    "registry_pipeline": (
        "no score of the test rows: the pipeline's evaluation is switched off",
        "no time limit by Azure, and no going on from a checkpoint",
        "Azure's own images train and serve, which have not run here",
    ),
    "finetuning_job": (
        "four hyperparameters; adapter, optimiser and schedule are the service's",
        "no time limit by Azure, no checkpoints; the API is in preview",
        "Azure's own images train and serve, which have not run here",
    ),
    "azure_openai": (
        "the weights stay at Azure: no download, no make local-serve",
        "the deployment bills by the hour, and Azure deletes it after 15 days without a request",
        "at most one job runs at a time in a resource",
    ),
}
"""What a route does not have, whatever the recipe."""

SHARED = {"training.epochs", "training.logging_steps", "training.checkpoint_steps"}
SHARED |= {"training.tracking", "training.keep_checkpoints", "training.gradient_checkpointing"}
SHARED |= {"training.distributed", "training.packing"}
"""Settings whose loss changes nothing of what is learned, and those that all routes take."""
TAKES: Mapping[RouteName, set[str]] = {
    "registry_pipeline": {
        *("lora.r", "lora.alpha", "lora.dropout", "tuning"),
        *("training.max_steps", "training.learning_rate", "training.warmup", "training.scheduler"),
        *("training.max_length", "training.packs_per_step", "training.weight_decay"),
        *("training.adam_beta2", "training.max_grad_norm", "training.seed"),
    },
    "finetuning_job": {
        *("training.learning_rate", "training.max_length", "training.packs_per_step"),
    },
    "azure_openai": {"training.packs_per_step", "training.seed"},
}
"""Settings that a route takes over; a command job takes all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a login has told; empty: nobody was asked."""

    models: Mapping[str, Foundation | str] = field(default_factory=dict)
    """By `registry/name`: the model as its registry knows it, or why it does not."""
    quota: Mapping[str, Quota] = field(default_factory=dict)
    """For training, by the machine's name."""
    resources: tuple[str, ...] | None = None
    """Azure OpenAI resources of the workspace's group; None: not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One route, for one recipe, today."""

    route: RouteName
    title: str
    state: State
    reason: str
    """Why it is open, or is not."""
    train: str = ""
    """What training costs at most; empty where it is closed."""
    ceiling: float | None = None
    """The same in dollars; None where it is not known."""
    serve: str = ""
    per_hour: float | None = None
    """Dollars while the endpoint stands, asked or not."""
    ignores: tuple[str, ...] = ()
    """Keys of the recipe that have no effect there."""
    lacks: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    """Overrides of the recipe that lead there."""


TITLES: Mapping[RouteName, str] = {
    "command_job": "own command job",
    "registry_pipeline": "pipeline of the registry",
    "finetuning_job": "fine-tuning job of the catalog",
    "azure_openai": "Azure OpenAI",
}


def judge(recipe: Recipe, facts: Facts) -> tuple[Verdict, ...]:
    """All four, in the order of ROUTES."""
    return (
        _command_job(recipe, facts),
        _catalog(recipe, facts, "registry_pipeline"),
        _catalog(recipe, facts, "finetuning_job"),
        _openai(recipe, facts),
    )


def take(recipe: Recipe, verdicts: Sequence[Verdict]) -> tuple[Verdict | None, str]:
    """The route that we would choose, and why; None where all are closed.

    Of the open ones: first those that do all that the recipe says, then the cheapest, then the
    recipe's own.
    """
    found = [verdict for verdict in verdicts if verdict.state == "open"]
    if not found:
        return None, "no route is open: choose another model."

    def rank(verdict: Verdict) -> tuple[bool, float, bool]:
        cost = float("inf") if verdict.ceiling is None else verdict.ceiling
        return bool(verdict.ignores), cost, verdict.route != recipe.cloud.route

    best = min(found, key=rank)
    if len(found) == 1:
        return best, "it is the only one that is open"
    whole = [verdict for verdict in found if not verdict.ignores]
    if best.ignores:
        return best, "no open route does all that the recipe says, and this is the cheapest"
    if len(whole) == 1:
        return best, "of those that are open it alone does all that the recipe says"
    costs = {verdict.ceiling for verdict in whole}
    if len(costs) > 1:
        return best, "of those that do all that the recipe says it is the cheapest"
    return best, "it costs what the others cost, and the recipe names it"


def of_base(recipe: Recipe) -> str:
    """The catalog's `registry/name` of the recipe's model; empty where it has none there.

    `mistralai/Mistral-7B-v0.1` is `azureml/mistralai-Mistral-7B-v01` there, so letters and digits
    alone are compared.
    """
    if recipe.cloud.route in ("registry_pipeline", "finetuning_job"):
        return recipe.cloud.model
    base = recipe.model.base
    called = {_plain(base), _plain(base.rpartition("/")[2])}
    there = (name for name in foundation.names() if _plain(name.rpartition("/")[2]) in called)
    return next(there, "")


def openai_name(recipe: Recipe) -> str:
    """The model of Azure OpenAI that the recipe starts from, or could; empty: none."""
    if recipe.cloud.route == "azure_openai":
        return recipe.cloud.model
    base = recipe.model.base
    return next((name for name, hub in OPENAI.items() if base and base in (name, hub)), "")


def is_private(recipe: Recipe) -> bool:
    """Whether nobody has the base model's weights but Azure."""
    base = recipe.model.base
    known = [name for name, hub in OPENAI.items() if not hub]
    return any(base == name or re.fullmatch(rf"{re.escape(name)}-\d.*", base) for name in known)


def ignored(recipe: Recipe, route: RouteName) -> tuple[str, ...]:
    """Keys that the recipe sets otherwise than their defaults, and that the route does not take."""
    if route == "command_job":
        return ()
    taken = SHARED | TAKES[route]
    return tuple(key for key in _changed(recipe) if key not in taken)


def _changed(recipe: Recipe) -> Iterator[str]:
    if recipe.tuning != "lora":
        yield "tuning"
    if recipe.model.adapter:
        yield "model.adapter"
    if recipe.tuning != "full":
        yield from _differs("lora", recipe.lora)
    yield from _differs("training", recipe.training)


def _differs(section: str, values: Any) -> Iterator[str]:
    default = type(values)()
    for entry in dataclasses.fields(values):
        if getattr(values, entry.name) != getattr(default, entry.name):
            yield f"{section}.{entry.name}"


def _command_job(recipe: Recipe, facts: Facts) -> Verdict:
    settings = recipe.cloud
    if is_private(recipe):
        return _closed("command_job", f"nobody but Azure has the weights of {recipe.model.base}")
    machine = _find(settings.instance_type)
    if isinstance(machine, str):
        return _closed("command_job", machine)
    reason = f"train/ takes {recipe.model.base}"
    change: tuple[str, ...] = ()
    known = _known(recipe, of_base(recipe))
    needed = foundation.gpu_gib(known, "train") if known and recipe.tuning == "lora" else 0
    if needed > machine.gpu_memory_gib * max(1, machine.gpus):
        better = _cheapest_with(needed)
        if better is None:
            return _closed("command_job", f"no known machine has {needed:.0f} GiB in one GPU")
        change = (f"cloud.instance_type={better.name}",)
        reason += f", though not on {machine.name}"
        machine = better
    elif known:
        reason += f"; whether it fits: make local-check GPU={machine.gpu}" if machine.gpus else ""
    return _on_machine(recipe, facts, "command_job", machine, reason, settings.nodes, change)


def _catalog(recipe: Recipe, facts: Facts, route: RouteName) -> Verdict:
    """The two routes that start from a model of a registry."""
    name = of_base(recipe)
    if recipe.method != "sft":
        return _closed(route, f"it learns answers only, and the recipe's method is {recipe.method}")
    if recipe.tuning == "qlora":
        return _closed(route, "it holds no base in 4 bits, and the recipe's tuning is qlora")
    if not name:
        return _closed(route, f"azure/catalog.yml knows no model of {recipe.model.base}")
    model = facts.models.get(_bare(name)) or _known(recipe, name)
    if isinstance(model, str):
        return _closed(route, model)
    if model is None:
        return _closed(route, f"azure/catalog.yml does not know {name}; log in to ask its registry")
    task = foundation.TASKS[recipe.cloud.task]
    if model.tasks is not None and task not in model.tasks:
        named = ", ".join(model.tasks) or "no task at all"
        return _closed(route, f"{model.name} can be fine-tuned for {named}, not for {task}")
    if route == "finetuning_job" and model.kind != "mlflow_model":
        return _closed(route, f"it takes MLflow models, and {model.name} is none")
    machine = _find(recipe.cloud.instance_type)
    change = []
    unfit = machine if isinstance(machine, str) else foundation.unfit(model, machine, "train")
    if unfit or isinstance(machine, str):
        better = foundation.cheapest(model, "train")
        if better is None:
            return _closed(route, f"no known machine may train {model.name}: {unfit}")
        machine = better
        change.append(f"cloud.instance_type={better.name}")
    if recipe.cloud.route != route:
        change = [f"cloud.route={route}", f"cloud.model={name}", *change]
        if (serving := _serving(model, recipe)) is not None:
            change.append(f"cloud.serve_instance_type={serving}")
    where = f"version {model.version} of registry {model.registry}" if model.version else ""
    reason = f"{model.name} can be fine-tuned for {task} ({where or model.source})"
    found = _on_machine(recipe, facts, route, machine, reason, 1, tuple(change))
    if model.is_retired():
        said = f"Microsoft retired the fine-tuning of {model.name} on {model.retired}"
        return dataclasses.replace(found, state="retired", reason=said)
    return found


def _serving(model: Foundation, recipe: Recipe) -> str | None:
    """A machine that may serve it, where the recipe's may not."""
    machine = _find(recipe.cloud.serve_instance_type)
    if not isinstance(machine, str) and not foundation.unfit(model, machine, "serve"):
        return None
    better = foundation.cheapest(model, "serve")
    return better.name if better else None


def _openai(recipe: Recipe, facts: Facts) -> Verdict:
    from scripts.azure.openai import prices as openai

    name, route, settings = openai_name(recipe), ROUTES[3], recipe.cloud.openai
    if recipe.method != "sft":
        return _closed(route, f"here it learns answers only, and the method is {recipe.method}")
    if not name:
        return _closed(route, f"Azure OpenAI does not fine-tune {recipe.model.base}")
    if facts.resources == () and not settings.resource:
        return _closed(route, "the workspace's resource group has no Azure OpenAI resource")
    opened = bool(OPENAI.get(name))
    kind = "GlobalStandard" if opened else settings.training_type
    price, hosting = openai.training(name, kind).price, openai.hosting(settings.sku).price
    tokens = _tokens(recipe)
    ceiling = None
    if price is None:
        said = f"costs: the price of training {name} is not known"
    elif tokens is None:
        said = f"costs ${price:g} per million tokens and epoch"
    else:
        ceiling = price * tokens * recipe.training.epochs / 1e6
        said = (
            f"costs about {money(ceiling)} ({recipe.training.epochs:g} x {tokens / 1e6:.3g} "
            f"million tokens x ${price:g}, tokens estimated)"
        )
    change = []
    if recipe.cloud.route != route:
        change = [f"cloud.route={route}", f"cloud.model={name}"]
        if opened:
            change += ["cloud.openai.training_type=GlobalStandard"]
            change += ["cloud.openai.sku=GlobalStandard"]
    reason = f"it fine-tunes {name} (read {OPENAI_READ})"
    if facts.resources:
        reason += f"; resource {', '.join(facts.resources)}"
    return Verdict(
        route=route,
        title=TITLES[route],
        state="open",
        reason=reason,
        train=said,
        ceiling=ceiling,
        serve=f"costs {money(hosting)} per hour until `make cloud-down`, and by the token",
        per_hour=hosting,
        ignores=ignored(recipe, route),
        lacks=LACKS[route],
        change=tuple(change),
    )


def _tokens(recipe: Recipe) -> int | None:
    """Tokens of an epoch, where the rows are a file here; never counted, only estimated."""
    from scripts.azure.openai import tokens

    path = ROOT / recipe.data.train
    return tokens.estimate(path.stat().st_size).total if path.is_file() else None


def _on_machine(
    recipe: Recipe,
    facts: Facts,
    route: RouteName,
    machine: Instance,
    reason: str,
    nodes: int,
    change: tuple[str, ...],
) -> Verdict:
    """The verdict on a route that bills for a machine by the hour."""
    settings = recipe.cloud
    if route == "command_job" and settings.route != route:
        change = (f"cloud.route={route}", *change)
    longest = settings.max_hours
    ceiling = None if machine.per_hour is None else nodes * longest * machine.per_hour
    each = f"{nodes} x {hours(longest)} x {machine.name}"
    quota = facts.quota.get(machine.name)
    if quota and quota.enough is False:
        free = (quota.limit or 0) - (quota.used or 0)
        reason += f"; but only {free} cores of {quota.family} are free, and it needs {quota.cores}"
    serves = prices.per_hour(_changed_to(change, settings.serve_instance_type))
    per_hour = None if serves is None else serves * settings.serve_instances
    return Verdict(
        route=route,
        title=TITLES[route],
        state="closed" if quota and quota.enough is False else "open",
        reason=reason,
        train=f"costs at most {money(ceiling)} ({each})",
        ceiling=ceiling,
        serve=f"costs {money(per_hour)} per hour until `make cloud-down`",
        per_hour=per_hour,
        ignores=ignored(recipe, route),
        lacks=LACKS[route],
        change=change,
    )


def _changed_to(change: Sequence[str], machine: str) -> str:
    prefix = "cloud.serve_instance_type="
    found = [line.removeprefix(prefix) for line in change if line.startswith(prefix)]
    return found[0] if found else machine


def _known(recipe: Recipe, model: str) -> Foundation | None:
    """What azure/catalog.yml knows of a model; None for an empty name too."""
    return foundation.known(with_model(recipe, model)) if model else None


def with_model(recipe: Recipe, model: str) -> Recipe:
    """The recipe, as if it started from that model of a registry."""
    return dataclasses.replace(recipe, cloud=dataclasses.replace(recipe.cloud, model=model))


def _closed(route: RouteName, reason: str) -> Verdict:
    return Verdict(route=route, title=TITLES[route], state="closed", reason=reason)


def _find(name: str) -> Instance | str:
    """The machine, or why there is none."""
    try:
        return prices.find(name)
    except UsageError as error:
        return str(error)


def _cheapest_with(gib: float) -> Instance | None:
    """The cheapest machine whose GPU has that much memory."""
    fit = [
        instance
        for instance in prices.table().instances.values()
        if instance.gpus and instance.gpu_memory_gib >= gib and instance.per_hour is not None
    ]
    return min(fit, key=lambda instance: instance.per_hour or 0, default=None)


def _bare(model: str) -> str:
    """`registry/name` without label or version."""
    return re.split(r"[@:]", model)[0]


@functools.cache
def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""Serve a fine-tuned MLflow model of the catalog: Azure's own image, no environment of ours.

    cost = serving_cost(recipe)
    told = deploy(work, model=asked, finish=False, path="/score", smoke=body)

The machine is checked against what the foundation model says of inference before anything bills.
Such a server fetches what its model needs and loads all weights before it answers, so probes wait
ten minutes, and a request has 90 seconds, as Azure's own samples have it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scripts.azure import deploying, foundation, names, prices, specs, splits
from scripts.azure.routes import Cost, Planned, Work
from scripts.azure.specs import Document
from scripts.azure.texts import hours, money
from scripts.azure.timeouts import Timeouts
from scripts.console import say
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.foundation import Foundation

KIND = "deployment-model"
"""The file of azure/ that this fills."""
TIMEOUTS = Timeouts(generation_seconds=85, request_timeout_ms=90_000)
"""Azure's image has no limit of its own that we could set: the first one is told, not enforced."""
SMOKE_PROMPT = "Hello"
MAX_NEW_TOKENS = 256
"""Of a request that asks nothing else."""
IMAGE = "Azure's own image, as the model's MLflow files ask for it"


def serving_cost(recipe: Recipe) -> Cost:
    """What the endpoint costs, told before it is made."""
    settings = recipe.cloud
    instance = prices.find(settings.serve_instance_type)
    on = f"on {settings.serve_instances} x {instance.name}"
    if instance.per_hour is None:
        return Cost(line=f"costs an unknown price, {on}", unknown=instance.unknown_price)
    each = instance.per_hour * settings.serve_instances
    return Cost(
        line=f"costs {money(each)} per hour until `make cloud-down`; "
        f"{money(each * settings.expires_hours)} in the {hours(settings.expires_hours)} to its "
        f"expiry tag, {on}"
    )


def deploy(
    work: Work,
    *,
    model: str,
    finish: bool,
    path: str,
    smoke: Mapping[str, Any],
) -> dict[str, Any]:
    """Serve the model (`name:version`, else the recipe's newest), or with `finish` delete the rest.

    `path` is where requests go (`/score`, `/completions`, …), `smoke` the trial request.
    """
    if finish:
        return deploying.finish(work)
    recipe = work.recipe
    for note in foundation.check_serving(foundation.read(work.cloud, recipe), recipe):
        say(f"note:   {note}")
    chosen = deploying.choose_model(work.cloud, recipe, model)
    served = f"{chosen.name}:{chosen.version}"
    endpoint = names.endpoint_name(recipe, work.cloud.workspace.guid)
    settings = recipe.cloud
    return deploying.roll_out(
        work,
        deploying.Served(
            model=chosen,
            mark=splits.mark(
                model=served,
                machines=[settings.serve_instance_type.lower(), settings.serve_instances],
                timeouts=TIMEOUTS,
            ),
            timeouts=TIMEOUTS,
            spec=lambda called: specs.entity(
                KIND, fill(name=called, endpoint=endpoint, model=served, recipe=recipe)
            ),
            smoke=smoke,
            path=path,
            image=IMAGE,
        ),
        Planned(
            rows=(),
            values={},
            train=Cost(line=""),
            deploy=serving_cost(recipe),
            label=work.cloud.label(),
        ),
    )


def fill(*, name: str, endpoint: str, model: str, recipe: Recipe) -> Document:
    """azure/deployment-model.yml with the recipe's machines; its probes stand in the file."""
    names.check_deployment(name)
    names.check_endpoint(endpoint)
    filled = specs.document(KIND)
    filled.update(
        name=name,
        endpoint_name=endpoint,
        model=f"azureml:{model}",
        instance_type=recipe.cloud.serve_instance_type,
        instance_count=recipe.cloud.serve_instances,
    )
    filled["request_settings"]["request_timeout_ms"] = TIMEOUTS.request_timeout_ms
    filled["tags"] = {}  # deploying.py sets them
    return filled


def input_data(prompt: str, task: str, *, max_new_tokens: int = MAX_NEW_TOKENS) -> dict[str, Any]:
    """The sample request of the catalog's pipelines, for /score: a chat, or a text to go on with.

    Tokens are not drawn, so that the same question has the same answer.
    """
    given: list[Any] = [prompt] if task == "text" else [{"role": "user", "content": prompt}]
    parameters: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False}
    if task == "text":
        parameters["return_full_text"] = False
    return {"input_data": {"input_string": given, "parameters": parameters}}


def output(body: Mapping[str, Any]) -> str:
    """The text in an answer to `input_data`, in either of its forms."""
    found = body.get("output", "")
    if isinstance(found, list):
        found = found[0] if found else ""
    return str(found)


def rows(model: "Foundation | None", recipe: Recipe) -> list[tuple[str, str]]:
    """The endpoint's part of the plan."""
    settings = recipe.cloud
    instance = prices.find(settings.serve_instance_type)
    lines = [
        ("", f"{settings.serve_instances} x {instance.name}, in {IMAGE}"),
        ("", serving_cost(recipe).line),
    ]
    if model and model.serve_on:
        lines.append(("", f"the model's registry serves it on {', '.join(model.serve_on)}"))
    return lines

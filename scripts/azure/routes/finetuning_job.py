"""A fine-tuning job of the model catalog: Azure's own code trains a model of a registry.

The service takes the rows as two data assets and registers the model itself; it is served by
Azure's image of the catalog, which speaks OpenAI's `/completions` and `/chat/completions`.
What the job is stands in forms.py, how it is sent in finetuning.py.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure import (
    attempts,
    deploying,
    forms,
    foundation,
    foundation_endpoint,
    names,
    prices,
    specs,
)
from scripts.azure import quota as quotas
from scripts.azure.foundation import Foundation
from scripts.azure.prices import Instance
from scripts.azure.routes import (
    Answer,
    Cost,
    Planned,
    Trained,
    Work,
    agree,
    registry_pipeline,
    text,
)
from scripts.azure.texts import hours, money
from scripts.console import say
from scripts.errors import CloudError, UsageError
from scripts.settings import relative
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud
    from scripts.azure.jobs import Job
    from scripts.azure.rows import Rows

TITLE = "fine-tuning job of the catalog"
PATHS = {"chat": "/chat/completions", "text": "/completions"}
"""Where the deployed model is asked, by cloud.task."""
FORMS = {"chat": "messages", "text": "text and ground_truth"}
SMOKE_TOKENS = 16
BYTES_A_TOKEN = 3
"""Of text in any language at least; English has four."""
HOSTED = "the service's own machines"

logs = registry_pipeline.logs  # both kinds of job have steps, which are runs of their own
cancel = attempts.cancel
key = deploying.key


def plan(recipe: Recipe, path: Path, cloud: "Cloud | None") -> Planned:
    """The job, its machine and cost; UsageError where the model or the machine will not do."""
    forms.check(recipe)
    model = foundation.read(cloud, recipe) if cloud else foundation.known(recipe)
    notes = check(model, recipe, cloud)
    return _planned(recipe, path, cloud, model, notes)


def check(model: Foundation | None, recipe: Recipe, cloud: "Cloud | None") -> tuple[str, ...]:
    """Notes on task, machine and hyperparameters; UsageError where it cannot be done."""
    said = tuple(forms.notes(recipe))
    if model is None:
        return (*said, f"{recipe.cloud.model} is not in azure/catalog.yml: its registry will tell")
    if model.kind != "mlflow_model":
        raise UsageError(
            f"{model.registry}/{model.name} is a {model.kind}, and a fine-tuning job takes an "
            "mlflow_model: set cloud.route to registry_pipeline or command_job for it."
        )
    if forms.hosted(recipe):
        task = foundation.TASKS[recipe.cloud.task]
        if model.tasks is not None and task not in model.tasks:
            raise UsageError(
                f"{model.name} cannot be fine-tuned for {task}: its registry names "
                f"{', '.join(model.tasks) or 'no task'}; set cloud.task or cloud.model."
            )
        return said
    return said + foundation.check_training(model, recipe, foundation.machine(cloud, recipe))


def _planned(
    recipe: Recipe,
    path: Path,
    cloud: "Cloud | None",
    model: Foundation | None,
    notes: tuple[str, ...] = (),
    size: int = 0,
) -> Planned:
    settings = recipe.cloud
    trains = None if forms.hosted(recipe) else foundation.machine(cloud, recipe)
    serves = prices.find(settings.serve_instance_type)
    quota = quotas.needed(settings, trains or serves, serves, cloud)
    quota = tuple(one for one in quota if trains or one.what == "deploy")
    short = tuple(
        f"quota:  {quotas.line(q)}" for q in quota if q.what == "train" and q.enough is False
    )
    train, deploy = (
        train_cost(recipe, trains, short, size),
        foundation_endpoint.serving_cost(recipe),
    )
    label = cloud.label() if cloud else ""
    rows = list(_rows(recipe, path, cloud, model, trains, label))
    rows += [
        ("", train.line),
        ("endpoint", endpoint(recipe, cloud)),
        *foundation_endpoint.rows(model, recipe),
        *(("quota", quotas.line(one)) for one in quota),
        *(("note", note) for note in notes),
    ]
    values = {
        "recipe": recipe.name,
        "route": settings.route,
        "workspace": cloud.workspace.name if cloud else "",
        "label": label,
        "model": settings.model if model is None else f"{model.registry}/{model.name}",
        "model_version": model.version if model else "",
        "task": forms.TASKS[settings.task],
        "hyperparameters": forms.hyperparameters(recipe),
        "train": {
            "instance": settings.instance_type if trains is None else trains.name,
            "nodes": 1,
            "max_hours": settings.max_hours,
            "ceiling": _ceiling(recipe, trains),
        },
        "quota": [{"what": q.what, "cores": q.cores, "enough": q.enough} for q in quota],
        "notes": list(notes),
    }
    return Planned(rows=tuple(rows), values=values, train=train, deploy=deploy, label=label)


def _rows(
    recipe: Recipe,
    path: Path,
    cloud: "Cloud | None",
    model: Foundation | None,
    trains: Instance | None,
    label: str,
) -> Iterator[tuple[str, str]]:
    settings = recipe.cloud
    where = f"{cloud.workspace.name} in {cloud.workspace.location}" if cloud else ""
    yield "recipe", f"{recipe.name} ({relative(path.resolve())})"
    yield "workspace", "; ".join(filter(None, (where or "not asked (offline)", label)))
    yield "route", TITLE
    yield "from", settings.model if model is None else described(model)
    if model and model.recommended:
        yield "", f"recommended machines: {', '.join(model.recommended)}"
    yield "rows", f"{FORMS[settings.task]}, for training and for validation"
    yield "job", f"{forms.TASKS[settings.task]}, named when its model and rows are known"
    yield "", ", ".join(f"{key}={text}" for key, text in forms.hyperparameters(recipe).items())
    if trains is None:
        yield "", HOSTED
        return
    on = f"cluster {settings.compute}" if settings.compute else "taken and given back"
    yield "", f"1 x {trains.name}, {on}"
    yield "", f"cancelled after {hours(settings.max_hours)}, as long as somebody follows it"


def described(model: Foundation) -> str:
    """The model in one line: where it is from, and what is to be known of it."""
    text = f"{model.registry}/{model.name}"
    facts = [f"version {model.version}" if model.version else "", model.license]
    facts += [f"fine-tuning retired on {model.retired}" if model.retired else ""]
    said = ", ".join(filter(None, facts))
    return f"{text} ({said})" if said else text


def train_cost(
    recipe: Recipe, machine: Instance | None, warnings: tuple[str, ...] = (), size: int = 0
) -> Cost:
    """What the job can cost; on the service's own machines by the `size` of the rows in bytes."""
    if machine is None:
        return _token_cost(recipe, size)
    if machine.per_hour is None:
        return Cost(line="costs at most: not known (see the note)", unknown=machine.unknown_price)
    longest = recipe.cloud.max_hours
    return Cost(
        line=f"costs at most {money(longest * machine.per_hour)} (1 x {hours(longest)} x "
        f"${machine.per_hour:,.4g}), as long as somebody follows it",
        warnings=warnings,
    )


def _token_cost(recipe: Recipe, size: int) -> Cost:
    model = recipe.cloud.model.partition("@")[0].partition(":")[0]
    price, epochs = prices.per_million(model), math.ceil(recipe.training.epochs)
    if price is None:
        return Cost(
            line="bills by the trained token, at a price that only the studio shows",
            unknown="the service's own machines bill by the trained token, and the price of "
            f"{model} is not known: write finetuning: {{{model}: …}} (dollars a million tokens, "
            f"from the studio) and instances: {{}} into a YAML file and set {prices.OWN} to it.",
        )
    if not size:
        return Cost(line=f"costs ${price:g} per million tokens of the rows and epoch")
    millions = size / BYTES_A_TOKEN / 1e6
    return Cost(
        line=f"costs about {money(epochs * millions * price)} ({epochs} x {millions:.3g} million "
        f"tokens x ${price:g}, tokens estimated by {BYTES_A_TOKEN} bytes each)"
    )


def _ceiling(recipe: Recipe, machine: Instance | None) -> float | None:
    if machine is None or machine.per_hour is None:
        return None
    return round(recipe.cloud.max_hours * machine.per_hour, 4)


def endpoint(recipe: Recipe, cloud: "Cloud | None") -> str:
    """Name of the endpoint, as far as it is known."""
    if cloud or recipe.cloud.endpoint:
        return names.endpoint_name(recipe, cloud.workspace.guid if cloud else "")
    return f"{names.slug(recipe.name)}-… (by the workspace)"


def train(work: Work, *, detach: bool = False) -> Trained:
    """Find or submit the job, follow it, and find the model that the service registered."""
    from scripts.azure import finetuning, jobs, rows, steps

    cloud, recipe = work.cloud, work.recipe
    forms.check(recipe)
    model = foundation.read(cloud, recipe)
    made = rows.prepare(recipe, work.path, recipe.cloud.task)
    base = job_name(recipe, model, made)
    # the service's own steps say more than the job, which only waits for them
    watch = steps.Watch(cloud, lambda: jobs.attempts(cloud, base)[-1].name, say)
    done = attempts.go(
        work,
        base,
        lambda name: _submit(work, model, made, name),
        detach=detach,
        max_hours=recipe.cloud.max_hours,
        look=watch.look,
    )
    if done.end is None:
        return Trained(job=done.job.name, status=done.job.status)
    measured = steps.measured(cloud, done.job.name)
    for line in steps.table(measured):
        say(f"metric: {line}")
    found = finetuning.mark(
        cloud, finetuning.registered(cloud, done.job.name), done.job.name, tags(cloud, recipe)
    )
    return Trained(
        job=done.job.name,
        status=done.end.status,
        model=found.id,
        hours=done.end.hours,
        cost_at_most=done.job.cost_at_most(done.end),
        values={
            "rows": dict(made.counts),
            "bytes": found.size,
            "metrics": measured,
            "label": cloud.label(),
        },
    )


def job_name(recipe: Recipe, model: Foundation, made: "Rows") -> str:
    """The same model, task, hyperparameters and rows are the same job."""
    settled = {"task": recipe.cloud.task, "parameters": forms.hyperparameters(recipe)}
    text = json.dumps(settled, sort_keys=True)
    return names.job_name(
        recipe.name,
        f"{recipe.cloud.route} {model.id}",
        hashlib.sha256(text.encode()).hexdigest(),
        made.hash,
    )


def tags(cloud: "Cloud", recipe: Recipe) -> dict[str, str]:
    """Whose it is, and what it is made of."""
    from scripts.azure.tags import OWNER, RECIPE

    return {OWNER: cloud.owner, RECIPE: recipe.name}


def _submit(work: Work, model: Foundation, made: "Rows", name: str) -> "Job":
    """Plan, ask, check, upload, send."""
    from scripts.azure import assets, finetuning, identities, jobs

    cloud, recipe = work.cloud, work.recipe
    specs.timeout_seconds(recipe)
    planned = _planned(
        recipe, work.path, cloud, model, check(model, recipe, cloud), made.train.stat().st_size
    )
    say(text(planned))
    say(f"rows:   {', '.join(f'{count:,} for {kind}' for kind, count in made.counts.items())}")
    agree(planned, "train", work.yes)
    jobs.ensure_compute(cloud, recipe, tags(cloud, recipe))
    if lacking := identities.check_storage(cloud, recipe):
        for sentence in lacking:
            say(f"access: {sentence}")
        raise CloudError("nothing was submitted: give the roles above first.")
    if made.validation is None:
        raise UsageError("there are no rows for validation: set data.validation.")
    slug = names.slug(recipe.name)
    filled = forms.fill(
        name=name,
        recipe=recipe,
        model=model.id,
        data={
            "train": assets.register_data(cloud, f"{slug}-train", made.train),
            "validation": assets.register_data(cloud, f"{slug}-validation", made.validation),
        },
        guid=finetuning.guid(f"{cloud.workspace.guid}/{name}"),
        # lists and older api-versions leave the machine out of the job's record
        tags={**tags(cloud, recipe), **_machine_tag(cloud, recipe)},
    )
    return finetuning.submit(cloud, filled)


def _machine_tag(cloud: "Cloud", recipe: Recipe) -> dict[str, str]:
    from scripts.azure import jobs

    if forms.hosted(recipe):
        return {}
    machine = foundation.machine(cloud, recipe)
    return jobs.machine_tag(machine.name, spot=recipe.cloud.spot and not recipe.cloud.compute)


def download(cloud: "Cloud", recipe: Recipe, job: str, outputs: Path) -> tuple[str, Path]:
    """The model and the metrics of the job, to outputs/<recipe>/<job>."""
    from scripts.azure import download as downloads
    from scripts.azure import finetuning, jobs, steps
    from scripts.azure.tags import RECIPE

    found = jobs.named_or_newest(cloud, job, recipe.name)
    if found.status != "Completed":
        raise CloudError(
            f"job {found.name} is {found.status}, and has left no model: make cloud-logs "
            f"JOB={found.name}"
        )
    model = finetuning.registered(cloud, found.name)
    folder = outputs / found.tags.get(RECIPE, recipe.name) / found.name
    downloads.model(cloud, model.name, model.version, folder / forms.OUTPUT)
    measured = json.dumps(steps.measured(cloud, found.name), indent=2, sort_keys=True)
    (folder / "metrics.json").write_text(f"{measured}\n", encoding="utf-8")
    return found.name, folder


def deploy(work: Work, *, model: str = "", finish: bool = False) -> Mapping[str, Any]:
    """Serve the model with Azure's image; the newest one where `model` is empty."""
    from scripts.azure import finetuning

    if finish:
        return deploying.finish(work)
    cloud, recipe = work.cloud, work.recipe
    if not model:
        newest = finetuning.newest(cloud, recipe)
        model = f"{newest.name}:{newest.version}"
    return foundation_endpoint.deploy(
        work,
        model=model,
        finish=False,
        path=PATHS[recipe.cloud.task],
        smoke=smoke(recipe),
    )


def rollback(work: Work) -> Mapping[str, Any]:
    """Move the traffic back to the deployment before."""
    recipe = work.recipe
    return deploying.rollback(work, smoke=smoke(recipe), path=PATHS[recipe.cloud.task])


def request(
    recipe: Recipe, prompt: str, *, tokens: int = foundation_endpoint.MAX_NEW_TOKENS
) -> dict[str, Any]:
    """The request in OpenAI's form; the server has one model, whatever name is given."""
    asked: dict[str, Any] = {"model": recipe.name, "max_tokens": tokens, "temperature": 0}
    if recipe.cloud.task == "text":
        return {**asked, "prompt": prompt}
    return {**asked, "messages": [{"role": "user", "content": prompt}]}


def smoke(recipe: Recipe) -> dict[str, Any]:
    """The trial request: short, since whether the answer is right is not its business."""
    return request(recipe, foundation_endpoint.SMOKE_PROMPT, tokens=SMOKE_TOKENS)


def curl(cloud: "Cloud", recipe: Recipe, prompt: str) -> str:
    """The command line that asks it."""
    client = deploying.asking(cloud, recipe, path=PATHS[recipe.cloud.task])
    return client.curl(request(recipe, prompt))


def ask(cloud: "Cloud", recipe: Recipe, prompt: str) -> Answer:
    """The deployed model's answer, with what it counted."""
    client = deploying.asking(cloud, recipe, path=PATHS[recipe.cloud.task])
    said = client.ask(request(recipe, prompt))
    return read(said.body, said.by)


def read(body: Mapping[str, Any], by: str) -> Answer:
    """OpenAI's answer to either request; CloudError where there is none in it."""
    try:
        first = body["choices"][0]
        message = first.get("message") or {"content": first["text"]}
        output = str(message["content"] or "")
    except (KeyError, IndexError, TypeError):
        raise CloudError(
            f"{by} answered without a choice: {json.dumps(body)[:200]}; next: make cloud-logs"
        ) from None
    usage = body.get("usage") or {}
    return Answer(
        output=output,
        reasoning=str(message.get("reasoning_content") or ""),
        by=by,
        body=body,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
    )

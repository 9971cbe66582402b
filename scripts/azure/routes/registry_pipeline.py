"""Route 2: the registry's own fine-tuning pipeline, and its MLflow model behind an endpoint.

`chat_completion_pipeline`, or `text_generation_pipeline` where cloud.task is text, of the registry
`azureml`, from the model that cloud.model names. The rows are made here by train's data code. Azure
sets such a job no time limit, so whoever follows it ends it after cloud.max_hours. A failed attempt
starts from the beginning.
"""

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure import attempts, deploying, foundation, foundation_endpoint
from scripts.azure.endpoints import SCORE
from scripts.azure.routes import Answer, Cost, Planned, Trained, Work, agree, text
from scripts.azure.texts import hours, money
from scripts.console import say
from scripts.errors import CloudError
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud
    from scripts.azure.foundation import Foundation
    from scripts.azure.jobs import Job
    from scripts.azure.pipeline_job import Parts
    from scripts.azure.prices import Instance
    from scripts.azure.rows import Rows

TITLE = "registry pipeline"
LINE = 90
"""Characters of a line of parameters in the plan."""
SMOKE_TOKENS = 16
"""Of the trial request: short, since whether the answer is right is not its business."""

cancel = attempts.cancel
key = deploying.key


def plan(recipe: Recipe, path: Path, cloud: "Cloud | None") -> Planned:
    """What would run on which machines; with `cloud` the registry is asked."""
    if cloud is None:
        model, instance = foundation.known(recipe), foundation.machine(None, recipe)
        notes = foundation.check_training(model, recipe, instance) if model else ()
        return _planned(recipe, path, None, model, instance, notes)
    from scripts.azure import pipeline_job

    return _plan(recipe, path, cloud, pipeline_job.assemble(cloud, recipe))


def train(work: Work, *, detach: bool = False) -> Trained:
    """Find or submit the pipeline, follow it and its steps, register its model."""
    from scripts.azure import jobs, pipeline_job, rows, steps

    cloud, recipe = work.cloud, work.recipe
    made = rows.prepare(recipe, work.path, recipe.cloud.task)
    parts = pipeline_job.assemble(cloud, recipe, made.counts.get("train", 0))
    base = parts.base_name(made.hash)
    watch = steps.Watch(cloud, lambda: jobs.attempts(cloud, base)[-1].name, say)
    done = attempts.go(
        work,
        base,
        lambda name: _submit(work, parts, made, name),
        detach=detach,
        max_hours=recipe.cloud.max_hours,
        look=watch.look,
    )
    job = done.job
    if done.end is None:
        return Trained(job=job.name, status=job.status)
    measured = steps.measured(cloud, job.name)
    for line in steps.table(measured):
        say(f"metric: {line}")
    model = pipeline_job.register(cloud, job.name, recipe, _tags(work))
    return Trained(
        job=job.name,
        status=done.end.status,
        model=model.id,
        hours=done.end.hours,
        cost_at_most=job.cost_at_most(done.end),
        values={"metrics": measured, "bytes": model.size},
    )


def logs(cloud: "Cloud", recipe: Recipe, job: str, *, every: bool = False) -> Mapping[str, Any]:
    """Follow the pipeline's steps on stdout, or with `every` read all their logs as they are."""
    from scripts.azure import steps

    return attempts.logs(
        cloud,
        recipe,
        job,
        every=every,
        read=steps.logs,
        look=lambda name, write: steps.Watch(cloud, name, write).look,
    )


def download(cloud: "Cloud", recipe: Recipe, job: str, outputs: Path) -> tuple[str, Path]:
    """The MLflow model and the metrics of the job, to outputs/<recipe>/<job>."""
    from scripts.azure import download as downloads
    from scripts.azure import jobs, pipeline_job, steps
    from scripts.azure.tags import RECIPE

    found = jobs.named_or_newest(cloud, job, recipe.name)
    folder = outputs / found.tags.get(RECIPE, recipe.name) / found.name
    place = downloads.output(cloud, found.name, pipeline_job.OUTPUT)
    downloads.fetch(cloud, place, folder / pipeline_job.OUTPUT)
    measured = json.dumps(steps.measured(cloud, found.name), indent=2, sort_keys=True)
    (folder / "metrics.json").write_text(f"{measured}\n", encoding="utf-8")
    return found.name, folder


def deploy(work: Work, *, model: str = "", finish: bool = False) -> dict[str, Any]:
    """Azure's own image with the MLflow model, blue and green."""
    return foundation_endpoint.deploy(
        work, model=model, finish=finish, path=SCORE, smoke=_smoke(work.recipe)
    )


def rollback(work: Work) -> dict[str, Any]:
    """Ask the deployment before, then give it all traffic."""
    return deploying.rollback(work, smoke=_smoke(work.recipe))


def curl(cloud: "Cloud", recipe: Recipe, prompt: str) -> str:
    """The command line that asks it, in the form of the catalog's models."""
    body = foundation_endpoint.input_data(prompt, recipe.cloud.task)
    return deploying.asking(cloud, recipe).curl(body)


def ask(cloud: "Cloud", recipe: Recipe, prompt: str) -> Answer:
    """The answer to `input_data`."""
    body = foundation_endpoint.input_data(prompt, recipe.cloud.task)
    answer = deploying.asking(cloud, recipe).ask(body)
    return Answer(
        output=foundation_endpoint.output(answer.body),
        by=answer.by,
        body=answer.body,
    )


def _submit(work: Work, parts: "Parts", made: "Rows", name: str) -> "Job":
    """Tell the plan, ask, check, upload the rows, submit."""
    from scripts.azure import assets, identities, jobs, names, pipeline_job

    cloud, recipe = work.cloud, work.recipe
    planned = _plan(recipe, work.path, cloud, parts, name, made)
    say(text(planned))
    agree(planned, "train", work.yes)
    tags = _tags(work)
    jobs.ensure_compute(cloud, recipe, tags)  # a new one has the identity that is asked for next
    if lacking := identities.check_storage(cloud, recipe):
        for sentence in lacking:
            say(f"access: {sentence}")
        raise CloudError("nothing was submitted: give the roles above first.")
    files = {"train": made.train, "validation": made.validation, "test": made.test}
    brought = {
        kind: assets.register_data(cloud, f"{names.slug(recipe.name)}-{kind}", file)
        for kind, file in files.items()
        if file
    }
    return jobs.submit(cloud, pipeline_job.build(parts, brought, name=name, tags=tags))


def _tags(work: Work) -> dict[str, str]:
    """Whose it is, and what it is made of."""
    from scripts.azure.tags import BASE, OWNER, RECIPE

    recipe = work.recipe
    return {OWNER: work.cloud.owner, RECIPE: recipe.name, BASE: recipe.cloud.model}


def _smoke(recipe: Recipe) -> dict[str, Any]:
    return foundation_endpoint.input_data(
        foundation_endpoint.SMOKE_PROMPT, recipe.cloud.task, max_new_tokens=SMOKE_TOKENS
    )


def _plan(
    recipe: Recipe,
    path: Path,
    cloud: "Cloud",
    parts: "Parts",
    job: str = "",
    made: "Rows | None" = None,
) -> Planned:
    """The plan of a job whose parts are known."""
    planned = _planned(recipe, path, cloud, parts.model, parts.instance, parts.notes, job)
    component = f"{parts.component.name} {parts.component.version}"
    counted = made or recipe.training.warmup >= 1
    given = ", ".join(
        f"{name} {value}"
        for name, value in sorted(parts.merged.values.items())
        if counted or name != "warmup_steps"
    )
    extra = [("pipeline", f"{component}, shown as {parts.title}")]
    extra += [("", line) for line in textwrap.wrap(f"with {given}", LINE)]
    if made:
        extra.append(("rows", ", ".join(f"{n} {kind}" for kind, n in made.counts.items())))
    if not counted:
        extra.append(("", "the warm-up is reckoned in steps when the rows are counted"))
    values = {**planned.values, "pipeline": component, "parameters": dict(parts.merged.values)}
    return dataclasses.replace(planned, rows=_before(planned.rows, "model", extra), values=values)


def _before(
    rows: tuple[tuple[str, str], ...], what: str, extra: list[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """The rows with more of them before the one called `what`."""
    at = next(index for index, row in enumerate(rows) if row[0] == what)
    return (*rows[:at], *extra, *rows[at:])


def _planned(
    recipe: Recipe,
    path: Path,
    cloud: "Cloud | None",
    model: "Foundation | None",
    instance: "Instance",
    notes: tuple[str, ...],
    job: str = "",
) -> Planned:
    """The plan, as far as it needs nobody."""
    from scripts.azure import names, prices, quota, specs
    from scripts.settings import relative

    settings = recipe.cloud
    specs.timeout_seconds(recipe)
    serves = prices.find(settings.serve_instance_type)
    if model:
        notes = (*notes, *foundation.check_serving(model, recipe))
    else:
        notes = (*notes, f"{settings.model} is not in azure/catalog.yml: only a registry knows it")
    workspace = cloud.workspace if cloud else None
    endpoint = names.endpoint_name(recipe, workspace.guid if workspace else "")
    named = endpoint if workspace or settings.endpoint else f"{names.slug(recipe.name)}-…"
    where = f"{workspace.name} in {workspace.location}" if workspace else "not asked (offline)"
    label = cloud.label() if cloud else ""
    quotas = quota.needed(settings, instance, serves, cloud)
    cost = training_cost(recipe, instance)
    on = f"cluster {settings.compute}" if settings.compute else "serverless"
    rows = [
        ("recipe", f"{recipe.name} ({relative(path.resolve())})"),
        ("route", f"{TITLE} (cloud.route is {settings.route})"),
        ("workspace", f"{where}; {label}" if label else where),
        ("starts from", _start(model, recipe)),
        ("job", job or "named when its rows are made"),
        ("", f"{settings.nodes} x {instance.name} ({instance.gpus} x {instance.gpu}), {on}"),
        ("", f"is ended after {hours(settings.max_hours)} by who follows it; Azure sets no limit"),
        ("", cost.line),
        ("model", f"{names.model_name(recipe)}, as MLflow model; its version is the time"),
        ("endpoint", named),
        *foundation_endpoint.rows(model, recipe),
        *(("quota", quota.line(one)) for one in quotas),
        *(("note", note) for note in notes),
    ]
    short = {
        what: tuple(
            f"quota:  {quota.line(one)}"
            for one in quotas
            if one.what == what and one.enough is False
        )
        for what in ("train", "deploy")
    }
    values = {
        "recipe": recipe.name,
        "path": relative(path.resolve()),
        "route": settings.route,
        "workspace": workspace.name if workspace else "",
        "location": workspace.location if workspace else "",
        "label": label,
        "foundation": dataclasses.asdict(model) if model else None,
        "train": {
            "instance": dataclasses.asdict(instance),
            "nodes": settings.nodes,
            "where": on,
            "max_hours": settings.max_hours,
            "ceiling": _ceiling(recipe, instance),
        },
        "serve": {
            "instance": dataclasses.asdict(serves),
            "count": settings.serve_instances,
            "per_hour": None
            if serves.per_hour is None
            else serves.per_hour * settings.serve_instances,
        },
        "job": job,
        "endpoint": endpoint if workspace or settings.endpoint else "",
        "model": names.model_name(recipe),
        "quota": [{**dataclasses.asdict(one), "enough": one.enough} for one in quotas],
        "notes": list(notes),
    }
    deploys = foundation_endpoint.serving_cost(recipe)
    return Planned(
        rows=tuple(rows),
        values=values,
        train=dataclasses.replace(cost, warnings=short["train"]),
        deploy=dataclasses.replace(deploys, warnings=short["deploy"]),
        label=label,
    )


def training_cost(recipe: Recipe, instance: "Instance") -> Cost:
    """The most that the job can cost, if somebody follows it."""
    settings, ceiling = recipe.cloud, _ceiling(recipe, instance)
    if ceiling is None:
        return Cost(line="costs at most: not known", unknown=instance.unknown_price)
    each = f"{settings.nodes} x {hours(settings.max_hours)} x ${instance.per_hour:,.4g}"
    return Cost(line=f"costs at most {money(ceiling)} ({each}), on {instance.name}")


def _ceiling(recipe: Recipe, instance: "Instance") -> float | None:
    if instance.per_hour is None:
        return None
    return round(instance.per_hour * recipe.cloud.nodes * recipe.cloud.max_hours, 4)


def _start(model: "Foundation | None", recipe: Recipe) -> str:
    """The foundation model with its version, license and input."""
    if model is None:
        return recipe.cloud.model
    version = f" version {model.version}" if model.version else ""
    license = f", license {model.license}" if model.license else ""
    return f"{model.registry}/{model.name}{version} as {model.input}{license} ({model.source})"

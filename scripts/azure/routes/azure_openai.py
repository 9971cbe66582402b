"""Route 4: Azure OpenAI trains one of its own models on our rows, and serves it by the hour.

There is no machine to choose and no model to bring home: tokens are paid for training, hours and
tokens for serving. A job is found again by the hash of all that goes into it, which ends its
suffix. Each model gets a deployment of its own; the newest one is asked, and the one before stays,
and bills, until `make cloud-deploy FINISH=1` deletes it.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure.openai import prices
from scripts.azure.routes import Answer, Planned, Trained, Work, agree, text
from scripts.console import say
from scripts.errors import CloudError, UsageError
from scripts.settings import OUTPUTS, relative
from train.recipe import Recipe

if TYPE_CHECKING:
    from openai import OpenAI

    from scripts.azure.client import Cloud
    from scripts.azure.openai.accounts import Account
    from scripts.azure.openai.jobs import Choice, Job, Wanted
    from scripts.azure.openai.rows import Data

TITLE = "Azure OpenAI"


def plan(recipe: Recipe, path: Path, cloud: "Cloud | None") -> Planned:
    """What would be trained and served; without the rows, tokens come of the files' size."""
    from scripts.azure.openai import accounts, rows, tokens
    from scripts.azure.openai.plan import planned

    size = rows.source_bytes(recipe)
    about = tokens.estimate(size) if size is not None else None
    account = accounts.find(cloud, recipe) if cloud else None
    return planned(recipe, path, cloud, account, about)


def train(work: Work, *, detach: bool = False) -> Trained:
    """Find or create the job, follow it, choose the checkpoint."""
    from scripts.azure.openai import accounts, jobs, rows

    cloud, recipe = work.cloud, work.recipe
    account = accounts.find(cloud, recipe)
    data = rows.gather(cloud, recipe, work.path)
    say(f"rows:   {data.line}")
    with _client(account) as service:
        wanted = _wanted(recipe, data, rows.there(data, service, recipe.name))
        tried = jobs.same(service, wanted)
        job = tried[0] if tried else None
        if job is None or job.status in ("failed", "cancelled"):
            if job:
                say(f"job:    {job.id} {job.status}{f': {job.error}' if job.error else ''}")
            job = _create(work, service, account, data)
        elif job.status == "succeeded":
            say(f"job:    {job.id} has done this already")
        else:
            say(f"job:    {job.id} is {job.status} already; nothing is created")
        if detach:
            return Trained(job=job.id, status=job.status)
        job = _follow(service, job, say, work.again, work.chosen)
        if job.status != "succeeded":
            raise CloudError(
                f"job {job.id} {job.status}{f': {job.error}' if job.error else ''}. Next: "
                f"{work.again} makes another attempt."
            )
        choice = jobs.choose(jobs.checkpoints(service, job), recipe.cloud.openai.checkpoint)
        folder = _keep(service, job, recipe, OUTPUTS, choice)
    say(f"model:  {choice.checkpoint.model}: {choice.reason}")
    say(f"curves: {relative(folder / 'curves.html')}")
    price = prices.training(recipe.cloud.model, recipe.cloud.openai.training_type).price
    cost = None if price is None or job.tokens is None else round(job.tokens * price / 1e6, 4)
    return Trained(
        job=job.id,
        status=job.status,
        model=choice.checkpoint.model,
        hours=job.hours,
        cost_at_most=cost,
        values={
            "resource": account.id,
            "base": job.model,
            "tuned": job.tuned,
            "checkpoint": choice.checkpoint.id,
            "reason": choice.reason,
            "tokens": job.tokens,
            "curves": str(folder / "curves.html"),
        },
    )


def _wanted(recipe: Recipe, data: "Data", files: tuple[str, str]) -> "Wanted":
    """The job; its suffix says all that goes into it."""
    from scripts.azure.openai import jobs, serving

    settings = recipe.cloud.openai
    parameters = jobs.hyperparameters(recipe.training.epochs, recipe.cloud.parameters)
    parts = [recipe.cloud.model, data.hash, recipe.training.seed, parameters]
    mark = hashlib.sha256(json.dumps([*parts, settings.training_type]).encode()).hexdigest()
    return jobs.Wanted(
        model=recipe.cloud.model,
        training_file=files[0],
        validation_file=files[1],
        suffix=jobs.suffix(serving.stem(recipe), mark),
        seed=recipe.training.seed,
        hyperparameters=parameters,
        training_type=settings.training_type,
    )


def _create(work: Work, service: "OpenAI", account: "Account", data: "Data") -> "Job":
    """Plan, ask, check, upload, create."""
    from scripts.azure.openai import accounts, jobs, rows
    from scripts.azure.openai.plan import planned

    recipe = work.recipe
    plans = planned(recipe, work.path, work.cloud, account, data.tokens, data.line)
    say(text(plans))
    accounts.check_model(account, recipe.cloud.model)
    agree(plans, "train", work.yes)
    job = jobs.create(
        service, _wanted(recipe, data, rows.send(data, service, account, recipe.name))
    )
    say(f"job:    {job.id} is created")
    return job


def _follow(service: "OpenAI", job: "Job", write: Any, again: str, chosen: str) -> "Job":
    from scripts.azure.openai import jobs

    try:
        return jobs.follow(service, job, write)
    except KeyboardInterrupt:
        say("")
        say(f"job:    {job.id} goes on without you; its tokens are billed when it is done")
        say(f"follow: {again}")
        say(f"cancel: make cloud-cancel JOB={job.id}{chosen}")
        raise
    except CloudError as error:
        raise CloudError(
            f"{error} The job goes on without you; follow it again: {again}"
        ) from error


def _client(account: "Account") -> "AbstractContextManager[OpenAI]":
    from scripts.azure.openai.client import connect

    return connect(account)


def _job(service: "OpenAI", recipe: Recipe, name: str) -> "Job":
    """The named job, or the recipe's newest."""
    from scripts.azure.openai import jobs, serving

    if name:
        return jobs.read(service, name)
    found = jobs.of_recipe(service, recipe.name, serving.stem(recipe))
    if not found:
        raise UsageError(f"recipe {recipe.name} has no fine-tuning job yet: make cloud-train.")
    return found[0]


def logs(cloud: "Cloud", recipe: Recipe, job: str, *, every: bool = False) -> Mapping[str, Any]:
    """The job's events on stdout as they come, or all at once in the answer."""
    from scripts.azure.openai import accounts, jobs, serving

    with _client(accounts.find(cloud, recipe)) as service:
        found = _job(service, recipe, job)
        if every:
            lines = "\n".join(line for _, line in jobs.events(service, found.id))
            texts = {"events.txt": lines, **_results(service, found)}
            return {"job": found.id, "status": found.status, "error": found.error, "logs": texts}
        say(f"job:    {found.id} ({found.status})")
        chosen = serving.named(recipe)
        again = f"make cloud-logs JOB={found.id}{chosen}"
        end = _follow(service, found, lambda line: print(line, flush=True), again, chosen)
    return {"job": end.id, "status": end.status, "error": end.error}


def cancel(cloud: "Cloud", recipe: Recipe, job: str) -> Mapping[str, Any]:
    """Cancel it and wait; what was trained so far is billed."""
    from scripts.azure.openai import accounts, jobs

    with _client(accounts.find(cloud, recipe)) as service:
        found = _job(service, recipe, job)
        if found.over:
            say(f"job:    {found.id} is {found.status} already")
        end = jobs.cancel(service, found.id)
    return {"job": end.id, "status": end.status, "tokens": end.tokens}


def download(cloud: "Cloud", recipe: Recipe, job: str, outputs: Path) -> tuple[str, Path]:
    """Metrics, curves, events and checkpoints; the weights cannot be had."""
    from scripts.azure.openai import accounts, jobs

    with _client(accounts.find(cloud, recipe)) as service:
        found = _job(service, recipe, job)
        if not found.over:
            raise UsageError(f"job {found.id} is {found.status}: make cloud-logs follows it.")
        choice = None
        if found.status == "succeeded":
            points = jobs.checkpoints(service, found)
            choice = jobs.choose(points, recipe.cloud.openai.checkpoint)
        folder = _keep(service, found, recipe, outputs, choice)
    say("note:   Azure OpenAI keeps the weights; these are the job's metrics, curves and events")
    return found.id, folder


def _keep(
    service: "OpenAI", job: "Job", recipe: Recipe, outputs: Path, choice: "Choice | None"
) -> Path:
    """Write what the job has left to outputs/<recipe>/<job>; the folder."""
    import dataclasses

    from scripts.azure.openai import curves, jobs

    folder = outputs / recipe.name / job.id
    folder.mkdir(parents=True, exist_ok=True)
    results = _results(service, job)
    for name, content in results.items():
        (folder / name).write_text(content, encoding="utf-8")
    lines = [line for _, line in jobs.events(service, job.id)]
    (folder / "events.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    told: dict[str, Any] = {"job": dataclasses.asdict(job)}
    if choice:
        told |= {"checkpoint": dataclasses.asdict(choice.checkpoint), "reason": choice.reason}
    (folder / "job.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
    steps = [step for content in results.values() for step in curves.parse(content)]
    step, note = (choice.checkpoint.step, choice.reason) if choice else (None, "")
    page = curves.page(f"{recipe.name}, {job.id}", steps, step, note)
    (folder / "curves.html").write_text(page, encoding="utf-8")
    return folder


def _results(service: "OpenAI", job: "Job") -> dict[str, str]:
    """The job's metrics by file name."""
    from scripts.azure.openai.client import call

    found = {}
    for number, file in enumerate(job.result_files, 1):
        content = call(f"read {file}", partial(service.files.content, file)).text
        found["results.csv" if number == 1 else f"results-{number}.csv"] = content
    return found


def deploy(work: Work, *, model: str = "", finish: bool = False) -> Mapping[str, Any]:
    """A deployment of the model beside the one before, asked until it answers."""
    from scripts.azure.openai import serving

    return serving.finish(work) if finish else serving.deploy(work, model)


def rollback(work: Work) -> Mapping[str, Any]:
    """Ask the deployment before, then make it the one that is asked."""
    from scripts.azure.openai import serving

    return serving.rollback(work)


def key(cloud: "Cloud", recipe: Recipe) -> str:
    """A key of the resource that serves."""
    from scripts.azure.openai import accounts

    return accounts.key(accounts.target(cloud, recipe))


def curl(cloud: "Cloud", recipe: Recipe, prompt: str) -> str:
    """The command line that asks it."""
    from scripts.azure.openai import serving

    return serving.curl(cloud, recipe, prompt)


def ask(cloud: "Cloud", recipe: Recipe, prompt: str) -> Answer:
    """The answer by OpenAI's own client."""
    from scripts.azure.openai import serving

    return serving.ask(cloud, recipe, prompt)

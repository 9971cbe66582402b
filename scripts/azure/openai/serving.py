"""Serving a fine-tuned model: a deployment for each model, of which the newest is asked.

    deploy(work, model="…"); rollback(work); finish(work)
    ask(cloud, recipe, "…")

A deployment cannot be split by traffic, so a new model gets one of its own under the recipe's name
and a hash of the model's. The one before goes on answering, and billing, until it is deleted. A
tag says since when a deployment is the one to ask; across tenants, where none is written, the time
of its creation does.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from scripts.azure import names, tags
from scripts.azure.client import Cloud
from scripts.azure.openai import accounts, deployments, jobs, prices
from scripts.azure.openai.accounts import Account
from scripts.azure.openai.client import connect
from scripts.azure.openai.deployments import SINCE, Deployment, Wanted
from scripts.azure.openai.plan import planned
from scripts.azure.routes import OPENAI_JOB, Answer, Work, agree
from scripts.console import say
from scripts.errors import UsageError
from scripts.settings import ROOT
from train.recipe import Recipe

SOURCE = "homeport-source"
"""Tag of a deployment: ARM id of the resource that trained its model."""
INSTEAD = "homeport-instead-of"
"""Tag of a deployment that was gone back to: the one that was asked until then."""
HASH = 6


def stem(recipe: Recipe) -> str:
    """What the suffixes of the recipe's jobs begin with."""
    return names.slug(recipe.cloud.openai.suffix or recipe.name)


def deploy(work: Work, model: str = "") -> dict[str, Any]:
    """A deployment of the model beside the one before, asked until it answers."""
    cloud, recipe = work.cloud, work.recipe
    there = accounts.target(cloud, recipe)
    base = _base(cloud, recipe)
    source = accounts.find(cloud, recipe)
    is_job = not model or model.startswith(OPENAI_JOB)
    chosen = _tuned(source, recipe, model) if is_job else model
    name = f"{base}-{hashlib.sha256(chosen.encode()).hexdigest()[:HASH]}"
    found = deployments.find(there, name)
    others = [each for each in deployments.of_recipe(there, base) if each.name != name]
    settings = recipe.cloud.openai
    if found and found.state == "Succeeded" and (not others or found.since > others[-1].since):
        say(f"deploy: {there.name}/{name} serves {chosen} already")
    else:
        agreed = planned(recipe, work.path, cloud, source, None)
        say(f"deploy: {there.name}/{name}, {chosen}")
        for each in others:
            say(f"note:   {each.account}/{each.name} stays and bills until FINISH=1 deletes it")
        agree(agreed, "deploy", work.yes)
        wanted = Wanted(
            model=chosen,
            sku=settings.sku,
            capacity=settings.capacity,
            source=source if there.id.casefold() != source.id.casefold() else None,
            tags=_tags(work, chosen, source),
        )
        if found and found.state in deployments.FAILED:
            say(f"delete: {there.name}/{name}, which {found.state.lower()} before")
            deployments.delete(there, name)
        deployments.put(there, name, wanted)
    deployments.wait(there, name)
    with connect(there) as service:
        reply = deployments.ready(service, name, _messages(recipe, _sample(recipe)))
    say(f"answer: {_output(reply)}")
    if there.tenant:
        say(
            f"note:   {there.name} is in tenant {there.tenant}: cloud-status needs RECIPE to see it"
        )
    return {
        "endpoint": there.name,
        "uri": f"{there.endpoint}/openai/v1/",
        "deployment": name,
        "model": chosen,
        "per_hour": prices.hosting(settings.sku).price,
        "label": cloud.label(),
    }


def _base(cloud: Cloud, recipe: Recipe) -> str:
    """What the names of the recipe's deployments begin with."""
    return names.endpoint_name(recipe, cloud.workspace.guid)


def _tuned(source: Account, recipe: Recipe, job: str) -> str:
    """The model of the job, or of the recipe's newest one that succeeded, by its checkpoint."""
    with connect(source) as service:
        tried = (
            [jobs.read(service, job)] if job else jobs.of_recipe(service, recipe.name, stem(recipe))
        )
        done = [each for each in tried if each.status == "succeeded"]
        if not done:
            what = f"job {job}" if job else f"recipe {recipe.name}"
            raise UsageError(f"{what} has no fine-tuned model (yet): make cloud-train.")
        points = jobs.checkpoints(service, done[0])
    choice = jobs.choose(points, recipe.cloud.openai.checkpoint)
    say(f"model:  {choice.checkpoint.model}: {choice.reason}")
    return choice.checkpoint.model


def _tags(work: Work, model: str, source: Account) -> dict[str, str]:
    now = datetime.now(UTC)
    expires = now + timedelta(hours=work.recipe.cloud.expires_hours)
    return tags.own(
        {
            tags.OWNER: work.cloud.owner,
            tags.RECIPE: work.recipe.name,
            tags.MODEL: model,
            tags.EXPIRES: expires.isoformat(timespec="seconds"),
            SINCE: now.isoformat(),
            SOURCE: source.id,
        }
    )


def finish(work: Work) -> dict[str, Any]:
    """Delete the recipe's deployments but the one that is asked."""
    there = accounts.target(work.cloud, work.recipe)
    found = deployments.of_recipe(there, _base(work.cloud, work.recipe))
    for each in found[:-1]:
        deployments.delete(there, each.name)
        say(f"delete: {each.account}/{each.name}")
    if not found[:-1]:
        say("finish: there is nothing to delete")
    return {
        "endpoint": there.name,
        "uri": f"{there.endpoint}/openai/v1/",
        "deployment": found[-1].name if found else "",
        "model": found[-1].model if found else "",
        "deleted": [each.name for each in found[:-1]],
    }


def rollback(work: Work) -> dict[str, Any]:
    """Make the deployment before the one that is asked, after it has answered."""
    cloud, recipe = work.cloud, work.recipe
    there, source = accounts.target(cloud, recipe), accounts.find(cloud, recipe)
    found = deployments.of_recipe(there, _base(cloud, recipe))
    if len(found) < 2:
        raise UsageError(
            f"{there.name} has no deployment of {recipe.name} before the present one: give the "
            "model to go back to, make cloud-deploy MODEL=…"
        )
    if there.tenant:
        raise UsageError(
            f"{there.name} is in another tenant, where deployments bear no tags to go back by: "
            f"delete {found[-1].name} (make cloud-down)."
        )
    now, before = found[-1], found[-2]
    if now.tags.get(INSTEAD) == before.name:  # this has been done, and is not to be undone
        deployments.wait(there, now.name)
        say(f"serves: {there.name}/{now.name} already; {before.name} stays and bills")
        return _rolled_back(there, now, before)
    with connect(there) as service:
        deployments.ready(service, before.name, _messages(recipe, _sample(recipe)))
    deployments.put(
        there,
        before.name,
        Wanted(
            model=before.model,
            sku=before.sku,
            capacity=before.capacity,
            source=source if there.id.casefold() != source.id.casefold() else None,
            tags={**before.tags, SINCE: datetime.now(UTC).isoformat(), INSTEAD: now.name},
        ),
    )
    deployments.wait(there, before.name)
    say(f"serves: {there.name}/{before.name}; {now.name} stays and bills until FINISH=1 deletes it")
    return _rolled_back(there, before, now)


def _rolled_back(there: Account, to: Deployment, other: Deployment) -> dict[str, Any]:
    return {
        "endpoint": there.name,
        "uri": f"{there.endpoint}/openai/v1/",
        "deployment": to.name,
        "model": to.model,
        "before": other.name,
    }


def _serving(cloud: Cloud, recipe: Recipe) -> tuple[Account, Deployment]:
    """The resource and the deployment that is asked; UsageError where there is none."""
    there = accounts.target(cloud, recipe)
    found = deployments.of_recipe(there, _base(cloud, recipe))
    if not found:
        raise UsageError(f"{there.name} has no deployment of {recipe.name}: make cloud-deploy.")
    return there, found[-1]


def curl(cloud: Cloud, recipe: Recipe, prompt: str) -> str:
    """The command line; curl reads the key from a file descriptor, where nobody else sees it."""
    there, found = _serving(cloud, recipe)
    body = {
        "model": found.name,
        "messages": _messages(recipe, prompt),
        "temperature": deployments.TEMPERATURE,
    }
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return (
        f"curl -s {there.endpoint}/openai/v1/chat/completions "
        f"-H @<(printf 'api-key: %s' \"$(make -s cloud-key{named(recipe)})\") "
        f"-H {shlex.quote('Content-Type: application/json')} -d {shlex.quote(data)}"
    )


def named(recipe: Recipe) -> str:
    """` RECIPE=…` where the recipe lies in its usual place."""
    path = ROOT / "recipes" / f"{recipe.name}.yaml"
    return f" RECIPE=recipes/{path.name}" if path.is_file() else ""


def ask(cloud: Cloud, recipe: Recipe, prompt: str) -> Answer:
    """The answer by OpenAI's own client."""
    there, found = _serving(cloud, recipe)
    with connect(there) as service:
        body = deployments.ask(service, found.name, _messages(recipe, prompt))
    message = (body.get("choices") or [{}])[0].get("message") or {}
    usage = body.get("usage") or {}
    return Answer(
        output=_output(body),
        reasoning=str(message.get("reasoning_content") or message.get("reasoning") or ""),
        by=f"{there.name}, deployment {found.name}",
        body=body,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
    )


def _messages(recipe: Recipe, prompt: str) -> list[dict[str, str]]:
    """The question after the same system text as in the rows (train/data/forms.py)."""
    language = recipe.data.reasoning_language
    parts = [f"reasoning language: {language}" if language else "", recipe.data.persona]
    system = "\n\n".join(part for part in parts if part)
    own = [{"role": "system", "content": system}] if system else []
    return [*own, {"role": "user", "content": prompt}]


def _sample(recipe: Recipe) -> str:
    from scripts.ask import SAMPLE

    return recipe.rehearsal.prompt or SAMPLE


def _output(body: Mapping[str, Any]) -> str:
    message = (body.get("choices") or [{}])[0].get("message") or {}
    return str(message.get("content") or "")

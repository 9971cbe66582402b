"""The rollout of a model to a managed online endpoint, whichever image serves it.

    found = roll_out(work, served, planned)      # ask, try out, move the traffic, tell
    finish(work); rollback(work, smoke=…, path=…)
    key(cloud, recipe); asking(cloud, recipe, path="/chat/completions").ask({…})

In what order things are changed is rollout.py's; which image serves and what a request looks like
is the route's.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from scripts.azure.endpoints import SCORE
from scripts.azure.routes import Planned, Work, agree
from scripts.console import say
from scripts.errors import CloudError, UsageError
from scripts.local_serve import SAMPLE
from train.recipe import Recipe

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineDeployment

    from scripts.azure.client import Cloud
    from scripts.azure.endpoints import Deployment, Endpoint
    from scripts.azure.models import Registered
    from scripts.azure.rollout import Result
    from scripts.azure.scoring import Client
    from scripts.azure.timeouts import Timeouts

SMOKE: Mapping[str, Any] = {"prompt": SAMPLE, "max_new_tokens": 32}
"""Short, so that a trial costs a second; whether the answer is right is not its business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """Our image, in the workspace's registry."""

    reference: str
    """By digest."""
    passed: bool
    """This very image has answered on this machine."""
    proof: str
    """The same as a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is to be served, and how it is asked."""

    model: "Registered"
    mark: str
    """Hash of all that makes the deployment what it is (splits.mark)."""
    timeouts: "Timeouts"
    spec: Callable[[str], "ManagedOnlineDeployment"]
    """The deployment of that name; called after the user has agreed and the image is pushed. Our
    tags are set on it afterwards, so it needs none."""
    smoke: Mapping[str, Any] = field(default_factory=lambda: SMOKE)
    """The trial request."""
    path: str = SCORE
    """Where it goes."""
    image: str = ""
    """For people: which image serves it; one line."""
    push: "Callable[[], Pushed] | None" = None
    """Brings our image to the registry; None where Azure's own image serves."""


def check_reference(model: str) -> None:
    """UsageError where MODEL is given and is no name:version."""
    name, colon, version = model.removeprefix("azureml:").partition(":")
    if model and not (name and colon and version):
        raise UsageError(
            f"MODEL={model} is no registered model: use name:version, or leave it out for the "
            "newest one of the recipe."
        )


def choose_model(cloud: "Cloud", recipe: Recipe, asked: str) -> "Registered":
    """The model that is asked for, or the newest of the recipe; UsageError where there is none."""
    from scripts.azure import models, names

    check_reference(asked)
    asked = asked.removeprefix("azureml:")
    found = models.named(cloud, asked) if asked else models.newest(cloud, recipe)
    if found is None and asked:
        raise UsageError(
            f"there is no model {asked} in {cloud.workspace.name}; next: make cloud-train, or "
            "leave MODEL out for the newest one."
        )
    if found is None:
        raise UsageError(
            f"no model {names.model_name(recipe)} is registered in {cloud.workspace.name} yet; "
            "next: make cloud-train"
        )
    return found


def roll_out(work: Work, served: Served, planned: Planned) -> dict[str, Any]:
    """The whole rollout; what is served then, for --json."""
    from scripts.azure import endpoints, names, rollout, specs
    from scripts.azure.tags import EXPIRES, IMAGE, MARK, MODEL, OWNER, RECIPE, own

    cloud, recipe, model = work.cloud, work.recipe, served.model
    served.timeouts.check()
    reference = f"{model.name}:{model.version}"
    name = names.endpoint_name(recipe, cloud.workspace.guid)
    there = endpoints.find(cloud, name)
    need_ours(there)
    say(f"model:  {reference}{_of(model)}")
    if served.image:
        say(f"image:  {served.image}")
    for line in consequences(there, served.mark):
        say(line)
    agree(planned, "deploy", work.yes)
    check_roles(cloud, recipe)
    pushed = served.push() if served.push else None
    if pushed:
        say(f"proof:  {pushed.proof}")
    expires = datetime.now(UTC) + timedelta(hours=recipe.cloud.expires_hours)
    expiry = {EXPIRES: expires.isoformat(timespec="seconds")}
    tags = {OWNER: cloud.owner, RECIPE: recipe.name}
    image = {IMAGE: pushed.reference.rpartition("@")[2]} if pushed else {}

    def deployment(called: str) -> "ManagedOnlineDeployment":
        made = served.spec(called)
        made.tags = own({**(made.tags or {}), **tags, **image, MODEL: reference, MARK: served.mark})
        return made

    wanted = rollout.Wanted(
        endpoint=name,
        mark=served.mark,
        instance_type=recipe.cloud.serve_instance_type,
        instances=recipe.cloud.serve_instances,
        steps=recipe.cloud.traffic_steps,
        seconds=served.timeouts.client_seconds,
        smoke=served.smoke,
        path=served.path,
        tags=expiry,
        again=work.again,
        down=f"make cloud-down ENDPOINT={name}",
    )
    result = rollout.roll_out(
        cloud, wanted, lambda: specs.endpoint(name, tags={**tags, **expiry}), deployment
    )
    tell(work, result, expires)
    return {
        "endpoint": name,
        "uri": endpoints.address(result.endpoint.uri, served.path),
        "deployment": result.deployment,
        "model": reference,
        "image": pushed.reference if pushed else "",
        "passed_here": bool(pushed and pushed.passed),
        "traffic": result.endpoint.traffic,
        "kept": [d.name for d in result.kept],
        "per_hour": rollout.hourly(wanted),
        "expires": expires.isoformat(timespec="seconds"),
        "label": cloud.label(),
    }


def tell(work: Work, result: "Result", expires: datetime) -> None:
    """What is served, what it costs, and what comes next."""
    from scripts.azure.billing import total
    from scripts.azure.texts import money

    name, chosen = result.endpoint.name, work.chosen
    say(f"served: {result.deployment} has all traffic of {name}{_label(work.cloud)}")
    for old in result.kept:
        say(
            f"kept:   {old.name}, without traffic, bills {money(total([old]))} per hour; back: "
            f"make cloud-rollback{chosen}; delete it: make cloud-deploy FINISH=1{chosen}"
        )
    cost = money(total(result.endpoint.deployments))
    say(
        f"bills:  {cost} per hour until make cloud-down ENDPOINT={name}; tagged to expire at "
        f"{expires:%Y-%m-%d %H:%M} UTC, which deletes nothing by itself"
    )
    prompt = work.recipe.rehearsal.prompt or SAMPLE
    say(f"next:   make ask TARGET=cloud{chosen} PROMPT={shlex.quote(prompt)}")


def finish(work: Work) -> dict[str, Any]:
    """Delete our deployments without traffic; what was deleted, for --json."""
    from scripts.azure import consent, endpoints
    from scripts.azure.billing import total
    from scripts.azure.splits import surplus
    from scripts.azure.texts import money

    cloud = work.cloud
    there = _there(cloud, work.recipe)
    need_ours(there)
    name, old = there.name, surplus(there)
    if old and not there.traffic:
        raise UsageError(
            f"no deployment of {name} has traffic, so none is the old one; next: make cloud-deploy "
            "to go on with the rollout, or make cloud-down to delete all."
        )
    if not old:
        say(f"{name} has no deployment without traffic; nothing to delete")
    else:
        listed = ", ".join(d.name for d in old)
        consent.ask(f"Delete {listed} ({money(total(old))} per hour)?", work.yes)
    for deployment in old:
        say(f"delete: {deployment.name} …")
        endpoints.delete_deployment(cloud, name, deployment.name)
    if old:
        say(f"done:   {name} bills {money(total(there.deployments, without=old))} per hour now")
    return {"endpoint": name, "deleted": [d.name for d in old], "label": cloud.label()}


def rollback(work: Work, *, smoke: Mapping[str, Any] = SMOKE, path: str = SCORE) -> dict[str, Any]:
    """Ask the deployment before whether it answers `smoke`, then give it all traffic.

    Given again it changes nothing: the endpoint's tag goes on naming the one that was gone back to.
    """
    from scripts.azure import endpoints, rollout, splits
    from scripts.azure.billing import total
    from scripts.azure.scoring import ScoringError
    from scripts.azure.tags import PREVIOUS
    from scripts.azure.texts import money
    from scripts.azure.timeouts import Timeouts

    cloud = work.cloud
    there = _there(cloud, work.recipe)
    name, target = there.name, splits.before(there)
    if target is None:
        raise UsageError(
            f"{name} has no deployment to go back to; next: make cloud-deploy MODEL=name:version "
            "of the model before"
        )
    asking = rollout.client(cloud, there, Timeouts().client_seconds, path)
    try:
        asking.ask(smoke, deployment=target.name)
    except ScoringError as error:
        raise CloudError(f"{target.name} does not answer, so nothing was moved: {error}") from error
    done = there.traffic == {target.name: 100}
    if not done:
        endpoints.set_traffic(cloud, name, {target.name: 100}, {PREVIOUS: target.name})
    say(
        f"served: {target.name} ({target.model}) has all traffic of {name} "
        f"{'already' if done else 'again'}{_label(cloud)}"
    )
    kept = [d for d in there.deployments if d.name != target.name]
    for deployment in kept:
        say(
            f"kept:   {deployment.name}, without traffic, bills {money(total([deployment]))} per "
            f"hour; delete it: make cloud-deploy FINISH=1{work.chosen}"
        )
    return {
        "endpoint": name,
        "deployment": target.name,
        "model": target.model,
        "traffic": {target.name: 100},
        "kept": [d.name for d in kept],
        "label": cloud.label(),
    }


def key(cloud: "Cloud", recipe: Recipe) -> str:
    """The endpoint's key."""
    from scripts.azure import endpoints

    return endpoints.key(cloud, _there(cloud, recipe).name)


def asking(cloud: "Cloud", recipe: Recipe, *, path: str = SCORE) -> "Client":
    """A client of the recipe's endpoint, with its key; `path` goes for the scoring URI's /score."""
    from scripts.azure import rollout
    from scripts.azure.timeouts import Timeouts

    return rollout.client(cloud, _there(cloud, recipe), Timeouts().client_seconds, path)


def check_roles(cloud: "Cloud", recipe: Recipe) -> None:
    """CloudError where an identity lacks a role that the endpoint needs."""
    from scripts.azure import identities

    missing = identities.check(cloud, recipe, "deploy")
    for sentence in missing:
        say(f"role:   {sentence}")
    if missing:
        raise CloudError(
            "a role is missing (above); nothing was made. Give it, then the same again."
        )


def need_ours(endpoint: "Endpoint | None") -> None:
    """UsageError for an endpoint that something else made."""
    if endpoint and not endpoint.ours:
        raise UsageError(
            f"endpoint {endpoint.name} was not made by Homeport: choose another name "
            "with ENDPOINT=… (cloud.endpoint in the recipe)."
        )


def consequences(there: "Endpoint | None", mark: str) -> Sequence[str]:
    """What the rollout will do to what is served now, line by line."""
    from scripts.azure.billing import total
    from scripts.azure.splits import find_marked, surplus
    from scripts.azure.texts import money

    if there is None:
        return []
    lines = []
    same = find_marked(there, mark)
    fresh = same is None or same.state in ("Failed", "Canceled", "Deleting")
    if same:
        then = "is deleted, and made again" if fresh else "goes on with it"
        lines.append(f"there:  {same.name} of the same model and image ({same.state}); {then}")
    kept: list[Deployment] = [
        d for d in there.deployments if d.traffic and (not same or d.name != same.name)
    ]
    for deployment in kept:
        lines.append(
            f"keeps:  {deployment.name}, then without traffic: {money(total([deployment]))} per "
            "hour until make cloud-deploy FINISH=1"
        )
    if fresh:
        for deployment in surplus(there, mark):
            lines.append(
                f"drops:  {deployment.name}, which has no traffic "
                f"({money(total([deployment]))} per hour)"
            )
    return lines


def _there(cloud: "Cloud", recipe: Recipe) -> "Endpoint":
    """The recipe's endpoint; UsageError where it is not there."""
    from scripts.azure import endpoints, names

    return endpoints.need(cloud, names.endpoint_name(recipe, cloud.workspace.guid))


def _label(cloud: "Cloud") -> str:
    return f" ({cloud.label()})" if cloud.label() else ""


def _of(model: "Registered") -> str:
    size = f", {model.size / 1e6:,.1f} MB" if model.size else ", of unknown size"
    return f"{size}, of job {model.job}" if model.job else size

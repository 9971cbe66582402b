"""Serve the recipe's newest model on Azure: beside what is served there now, then instead of it.

With FINISH=1 it deletes the deployments without traffic that an earlier rollout has kept.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.errors import CloudError, UsageError
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import environment, flag_default
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud
    from scripts.azure.endpoints import Deployment, Endpoint
    from scripts.azure.models import Registered
    from scripts.azure.rollout import Result

UNKNOWN_BYTES = 50_000_000_000
"""Taken for a model of unknown size, so that probes wait rather too long than too short."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-deploy", description="Serve a registered model on an Azure endpoint."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--model",
        default=flag_default("MODEL"),
        help="name:version of a registered model, instead of the recipe's newest",
    )
    parser.add_argument(
        "--endpoint", default=flag_default("ENDPOINT"), help="instead of the recipe's"
    )
    parser.add_argument(
        "--yes", action="store_true", default=bool(flag_default("YES")), help="agree to the cost"
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        default=bool(flag_default("FINISH")),
        help="delete the deployments without traffic",
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="one JSON object"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set, arguments.endpoint))
    check_reference(arguments.model)
    from scripts.azure.client import connect

    cloud = connect()
    if arguments.finish:
        found = finish(cloud, recipe, arguments.yes)
    else:
        found = deploy(cloud, recipe, arguments.recipe, arguments.model, arguments.yes)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    elif "uri" in found:
        print(found["uri"])


def check_reference(model: str) -> None:
    """UsageError where MODEL is given and is no name:version."""
    name, colon, version = model.partition(":")
    if model and not (name and colon and version):
        raise UsageError(
            f"MODEL={model} is no registered model: use name:version, or leave it out for the "
            "newest one of the recipe."
        )


def deploy(cloud: "Cloud", recipe: Recipe, path: Path, asked: str, yes: bool) -> dict[str, Any]:
    """The whole rollout; what is served then, for --json."""
    from scripts.azure import assets, endpoints, images, names, plan, probes, rollout, specs, splits
    from scripts.azure.tags import EXPIRES, IMAGE, MARK, MODEL, OWNER, RECIPE
    from scripts.azure.timeouts import Timeouts

    timeouts = Timeouts()
    timeouts.check()
    model = choose_model(cloud, recipe, asked)
    served = f"{model.name}:{model.version}"
    device = images.device_for(recipe, cloud, "serve")
    image = images.local("serve", device.value, environment(), cloud.workspace.rehearsal)
    name = names.endpoint_name(recipe, cloud.workspace.guid)
    mark = splits.mark(
        model=served,
        image=image.id,
        machines=[recipe.cloud.serve_instance_type.lower(), recipe.cloud.serve_instances],
        timeouts=timeouts,
    )
    there = endpoints.find(cloud, name)
    need_ours(there)
    say(f"model:  {served}{_of(model)}")
    say(f"image:  {image.tag} {image.id[7:19]} ({device})")
    for line in consequences(there, mark):
        say(line)
    plan.confirm(plan.build(recipe, path, cloud), yes, "deploy")
    check_roles(cloud, recipe)
    reference = images.push(cloud, image)
    passed = images.passed(reference)
    say(f"proof:  {passed.sentence}")
    serving = assets.environment(cloud, "serve", reference)
    expires = datetime.now(UTC) + timedelta(hours=recipe.cloud.expires_hours)
    expiry = {EXPIRES: expires.isoformat(timespec="seconds")}
    tags = {OWNER: cloud.owner, RECIPE: recipe.name}
    own = {
        **tags,
        IMAGE: reference.rpartition("@")[2],
        MODEL: served,
        MARK: mark,
    }
    chosen = f" RECIPE={path}" if str(path) != DEFAULT_RECIPE else ""
    chosen += f" ENDPOINT={name}" if recipe.cloud.endpoint else ""
    wanted = rollout.Wanted(
        endpoint=name,
        mark=mark,
        instance_type=recipe.cloud.serve_instance_type,
        instances=recipe.cloud.serve_instances,
        steps=recipe.cloud.traffic_steps,
        seconds=timeouts.client_seconds,
        tags=expiry,
        again=f"make cloud-deploy{chosen}{f' MODEL={asked}' if asked else ''}",
        down=f"make cloud-down ENDPOINT={name}",
    )
    result = rollout.roll_out(
        cloud,
        wanted,
        lambda: specs.endpoint(name, tags={**tags, **expiry}),
        lambda called: specs.deployment(
            name=called,
            endpoint=name,
            model=served,
            environment=serving,
            recipe=recipe,
            probes=probes.probes_for(model.size or UNKNOWN_BYTES),
            timeouts=timeouts,
            tags=own,
        ),
    )
    tell(cloud, result, expires, chosen)
    return {
        "endpoint": name,
        "uri": result.endpoint.uri,
        "deployment": result.deployment,
        "model": served,
        "image": reference,
        "passed_here": passed.same,
        "traffic": result.endpoint.traffic,
        "kept": [d.name for d in result.kept],
        "per_hour": rollout.hourly(wanted),
        "expires": expires.isoformat(timespec="seconds"),
        "label": cloud.label(),
    }


def tell(cloud: "Cloud", result: "Result", expires: datetime, chosen: str) -> None:
    """What is served, what it costs, and what comes next."""
    from scripts.azure.billing import total
    from scripts.azure.texts import money

    name = result.endpoint.name
    label = f" ({cloud.label()})" if cloud.label() else ""
    say(f"served: {result.deployment} has all traffic of {name}{label}")
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
    say(f"next:   make ask TARGET=cloud{chosen} PROMPT='オーストラリアの首都はどこですか？'")


def finish(cloud: "Cloud", recipe: Recipe, yes: bool) -> dict[str, Any]:
    """Delete our deployments without traffic; what was deleted, for --json."""
    from scripts.azure import consent, endpoints, names
    from scripts.azure.billing import total
    from scripts.azure.splits import surplus
    from scripts.azure.texts import money

    name = names.endpoint_name(recipe, cloud.workspace.guid)
    there = endpoints.need(cloud, name)
    need_ours(there)
    old = surplus(there)
    if old and not there.traffic:
        raise UsageError(
            f"no deployment of {name} has traffic, so none is the old one; next: make cloud-deploy "
            "to go on with the rollout, or make cloud-down to delete all."
        )
    if not old:
        say(f"{name} has no deployment without traffic; nothing to delete")
    else:
        listed = ", ".join(d.name for d in old)
        consent.ask(f"Delete {listed} ({money(total(old))} per hour)?", yes)
    for deployment in old:
        say(f"delete: {deployment.name} …")
        endpoints.delete_deployment(cloud, name, deployment.name)
    if old:
        say(f"done:   {name} bills {money(total(there.deployments, without=old))} per hour now")
    return {"endpoint": name, "deleted": [d.name for d in old], "label": cloud.label()}


def choose_model(cloud: "Cloud", recipe: Recipe, asked: str) -> "Registered":
    """The model that is asked for, or the newest of the recipe; UsageError where there is none."""
    from scripts.azure import models, names

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


def _of(model: "Registered") -> str:
    size = f", {model.size / 1e6:,.1f} MB" if model.size else ", of unknown size"
    return f"{size}, of job {model.job}" if model.job else size


if __name__ == "__main__":
    run_verb(main)

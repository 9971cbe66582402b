"""Route 1: our own train image on an Azure ML machine, and our serve image behind an endpoint.

The job's name comes of the image, the recipe and the data. A failed attempt's checkpoints stay, and
the next one goes on from them. It is the one route that trains any model of the hub, in any way
that train/ can.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure import attempts, deploying
from scripts.azure.routes import Answer, Planned, Trained, Work, agree, text
from scripts.console import say
from scripts.errors import CloudError
from scripts.settings import environment
from train.recipe import Recipe

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineDeployment

    from scripts.azure.assets import Needs
    from scripts.azure.client import Cloud
    from scripts.azure.images import LocalImage
    from scripts.azure.jobs import Job

TITLE = "own command job"
UNKNOWN_BYTES = 50_000_000_000
"""Taken for a model of unknown size, so that probes wait rather too long than too short."""

logs = attempts.logs
cancel = attempts.cancel
finish = deploying.finish
key = deploying.key


def plan(recipe: Recipe, path: Path, cloud: "Cloud | None") -> Planned:
    """What would run on which image, and what that can cost."""
    from scripts.azure import plan as plans

    return plans.planned(plans.build(recipe, path, cloud))


def train(work: Work, *, detach: bool = False) -> Trained:
    """Find or submit the job, follow it, register its model."""
    from scripts.azure import assets, images, models
    from scripts.azure.tags import IMAGE

    cloud, recipe = work.cloud, work.recipe
    needs = assets.with_staged(cloud, assets.gather(recipe))
    device = images.device_for(recipe, cloud)
    say(f"image:  {device}")
    image = images.local("train", device.value, environment(), cloud.workspace.rehearsal)
    reference = images.reference(cloud, image)
    done = attempts.go(
        work,
        needs.job_name(reference) if reference else "",
        lambda name: _submit(work, needs, image, reference, name),
        detach=detach,
    )
    job = done.job
    if done.end is None:
        return Trained(job=job.name, status=job.status)
    # the job's own image, which is known by digest since it was submitted
    model = models.register(cloud, job, recipe, _tags(work, job.tags.get(IMAGE, "")))
    return Trained(
        job=job.name,
        status=done.end.status,
        model=model.id,
        hours=done.end.hours,
        cost_at_most=job.cost_at_most(done.end),
        values={"image": job.tags.get(IMAGE, ""), "bytes": model.size},
    )


def _tags(work: Work, image: str) -> dict[str, str]:
    """Whose it is, and what it is made of."""
    from scripts.azure.tags import IMAGE, OWNER, RECIPE

    return {
        OWNER: work.cloud.owner,
        RECIPE: work.recipe.name,
        IMAGE: image.rpartition("@")[2],
    }


def _submit(work: Work, needs: "Needs", image: "LocalImage", reference: str, name: str) -> "Job":
    """Plan, ask, check, push, upload, submit; `name` and `reference` may not be known yet."""
    from scripts.azure import assets, identities, images, jobs, prices, specs, vault
    from scripts.azure import plan as plans

    cloud, recipe = work.cloud, work.recipe
    references = {"train": reference} if reference else {}
    planned = plans.planned(plans.build(recipe, work.path, cloud, job=name, references=references))
    say(text(planned))
    agree(planned, "train", work.yes)
    if lacking := identities.check(cloud, recipe, "train"):
        for sentence in lacking:
            say(f"access: {sentence}")
        raise CloudError("nothing was submitted: give the roles above first.")
    variables = vault.job_variables(cloud, recipe)
    reference = reference or images.push(cloud, image)
    base = needs.job_name(reference)
    tags = _tags(work, reference)
    jobs.ensure_compute(cloud, recipe, tags)
    environment_id = assets.environment(cloud, "train", reference)
    inputs = assets.bring(cloud, needs)
    return jobs.submit(
        cloud,
        specs.job(
            name=name or base,
            base_name=base,
            environment=environment_id,
            recipe=recipe,
            inputs=inputs,
            instance=prices.find(recipe.cloud.instance_type),
            tags=tags,
            environment_variables=variables,
        ),
    )


def download(cloud: "Cloud", recipe: Recipe, job: str, outputs: Path) -> tuple[str, Path]:
    """The job's finished run, to outputs/<recipe>/<run id>."""
    from scripts.azure import download as downloads
    from scripts.azure import jobs
    from scripts.azure.tags import RECIPE

    found = jobs.named_or_newest(cloud, job, recipe.name)
    name = found.tags.get(RECIPE, recipe.name)
    return found.name, downloads.results(cloud, found.name, name, outputs)


def deploy(work: Work, *, model: str = "", finish: bool = False) -> dict[str, Any]:
    """Our serve image with the model, blue and green."""
    from scripts.azure import assets, images, names, probes, specs, splits
    from scripts.azure.timeouts import Timeouts

    if finish:
        return deploying.finish(work)
    cloud, recipe = work.cloud, work.recipe
    timeouts = Timeouts()
    chosen = deploying.choose_model(cloud, recipe, model)
    served = f"{chosen.name}:{chosen.version}"
    device = images.device_for(recipe, cloud, "serve")
    image = images.local("serve", device.value, environment(), cloud.workspace.rehearsal)
    reference = ""

    def push() -> deploying.Pushed:
        nonlocal reference
        reference = images.push(cloud, image)
        passed = images.passed(reference)
        return deploying.Pushed(reference=reference, passed=passed.same, proof=passed.sentence)

    def spec(name: str) -> "ManagedOnlineDeployment":
        made: ManagedOnlineDeployment = specs.deployment(
            name=name,
            endpoint=names.endpoint_name(recipe, cloud.workspace.guid),
            model=served,
            environment=assets.environment(cloud, "serve", reference),
            recipe=recipe,
            probes=probes.probes_for(chosen.size or UNKNOWN_BYTES),
            timeouts=timeouts,
        )
        return made

    return deploying.roll_out(
        work,
        deploying.Served(
            model=chosen,
            mark=splits.mark(
                model=served,
                image=image.id,
                machines=[recipe.cloud.serve_instance_type.lower(), recipe.cloud.serve_instances],
                timeouts=timeouts,
            ),
            timeouts=timeouts,
            spec=spec,
            image=f"{image.tag} {image.id[7:19]} ({device})",
            push=push,
        ),
        plan(recipe, work.path, cloud),
    )


def rollback(work: Work) -> dict[str, Any]:
    """Ask the deployment before, then give it all traffic."""
    return deploying.rollback(work)


def curl(cloud: "Cloud", recipe: Recipe, prompt: str) -> str:
    """The command line that asks it."""
    return deploying.asking(cloud, recipe).curl({"prompt": prompt})


def ask(cloud: "Cloud", recipe: Recipe, prompt: str) -> Answer:
    """The answer in our server's own form."""
    answer = deploying.asking(cloud, recipe).ask({"prompt": prompt})
    usage = answer.body.get("usage") or {}
    return Answer(
        output=str(answer.body.get("output", "")),
        reasoning=str(answer.body.get("reasoning") or ""),
        by=answer.by,
        body=answer.body,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
    )

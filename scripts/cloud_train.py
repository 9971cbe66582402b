"""Fine-tune on Azure ML, or go on with the job that does so already; registers the model.

The job's name comes of the image, the recipe and the data, so the same command finds the same job:
it follows one that runs, takes the result of one that is completed, and says why one has failed
before it asks for the next attempt, which goes on from the last one's checkpoints.
"""

import argparse
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.errors import CloudError, UsageError
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import environment, flag_default
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.assets import Needs
    from scripts.azure.client import Cloud
    from scripts.azure.history import Details
    from scripts.azure.images import LocalImage
    from scripts.azure.jobs import Job
    from scripts.azure.models import Registered


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What one call of the verb works on."""

    cloud: "Cloud"
    recipe: Recipe
    path: Path
    needs: "Needs"
    yes: bool
    again: str
    """The command that comes back to this job."""

    def tags(self, image: str) -> dict[str, str]:
        """Whose it is, and what it is made of."""
        from scripts.azure.tags import IMAGE, OWNER, RECIPE

        return {
            OWNER: self.cloud.owner,
            RECIPE: self.recipe.name,
            IMAGE: image.rpartition("@")[2],
        }


def train(work: Training, *, detach: bool = False) -> "tuple[Job, Details, Registered] | Job":
    """Find or submit the job, follow it, register its model; with `detach` only the job.

    CloudError where the job does not complete.
    """
    from scripts.azure import images, jobs, models

    image = _image(work)
    reference = images.reference(work.cloud, image)
    tried = jobs.attempts(work.cloud, work.needs.job_name(reference)) if reference else []
    job = tried[-1] if tried else None
    if job is None:
        job, reference = _submit(work, image, reference, 1)
    elif job.status == "Completed":
        say(f"job:    {job.name} has done this already")
    elif job.over:
        say(f"job:    {job.name} {job.status}: {_why(work.cloud, job)}")
        job, reference = _submit(work, image, reference, len(tried) + 1)
    else:
        say(f"job:    {job.name} is {job.status} already; nothing is submitted")
    if job.studio and not work.cloud.workspace.rehearsal:
        say(f"page:   {job.studio}")
    if detach:
        return job
    end = jobs.follow(work.cloud, job.name, say, command=work.again)
    if end.status != "Completed":
        raise CloudError(
            f"job {job.name} {end.status}: {jobs.why(work.cloud, job, end)} Next: {work.again} "
            "makes another attempt, which goes on from the last checkpoint."
        )
    model = models.register(work.cloud, job, work.recipe, work.tags(reference))
    return job, end, model


def _image(work: Training) -> "LocalImage":
    """The train image for the recipe's machine; built here where it is not."""
    from scripts.azure import images

    device = images.device_for(work.recipe, work.cloud)
    say(f"image:  {device}")
    return images.local("train", device.value, environment(), work.cloud.workspace.rehearsal)


def _why(cloud: "Cloud", job: "Job") -> str:
    """Why an earlier attempt did not complete; history may have forgotten it."""
    from scripts.azure import history, jobs
    from scripts.azure.client import NotFound

    if job.status == "Canceled":
        return "somebody cancelled it"
    try:
        return jobs.why(cloud, job, history.details(cloud, job.name))
    except NotFound:
        return "run history does not know it any more"


def _submit(work: Training, image: "LocalImage", reference: str, attempt: int) -> "tuple[Job, str]":
    """Plan, ask, check, push, upload, submit; the job and its image by digest."""
    from scripts.azure import assets, identities, images, jobs, names, plan, prices, specs, vault

    cloud, recipe, needs = work.cloud, work.recipe, work.needs
    name = names.attempt(needs.job_name(reference), attempt) if reference else ""
    references = {"train": reference} if reference else {}
    planned = plan.build(recipe, work.path, cloud, job=name, references=references)
    say(plan.text(planned))
    plan.confirm(planned, work.yes, "train")
    if lacking := identities.check(cloud, recipe, "train"):
        for sentence in lacking:
            say(f"access: {sentence}")
        raise CloudError("nothing was submitted: give the roles above first.")
    variables = vault.job_variables(cloud, recipe)
    reference = reference or images.push(cloud, image)
    base = needs.job_name(reference)
    name = names.attempt(base, attempt)
    jobs.ensure_compute(cloud, recipe, work.tags(reference))
    environment_id = assets.environment(cloud, "train", reference)
    inputs = assets.bring(cloud, needs)
    job = jobs.submit(
        cloud,
        specs.job(
            name=name,
            base_name=base,
            environment=environment_id,
            recipe=recipe,
            inputs=inputs,
            instance=prices.find(recipe.cloud.instance_type),
            tags=work.tags(reference),
            environment_variables=variables,
        ),
    )
    say(f"job:    {job.name} is submitted")
    return job, reference


def result(work: Training, job: "Job", end: "Details", model: "Registered") -> dict[str, Any]:
    """What the verb found out, for programs; hours and US dollars."""
    from scripts.azure.tags import IMAGE

    return {
        "job": job.name,
        "status": end.status,
        "hours": round(end.hours, 4),
        "cost_at_most": job.cost_at_most(end),
        "image": job.tags.get(IMAGE, ""),
        "model": model.id,
        "bytes": model.size,
        "label": work.cloud.label(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-train",
        description="Fine-tune on Azure ML, or go on with the job that does; register the model.",
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--yes", action="store_true", default=bool(flag_default("YES")), help="agree to the cost"
    )
    parser.add_argument(
        "--detach", action="store_true", default=bool(flag_default("DETACH")), help="do not follow"
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe, overrides(arguments.set))
    if recipe.cloud.route != "command_job":
        raise UsageError(f"cloud.route is {recipe.cloud.route}: only command_job trains here.")
    from scripts.azure import assets
    from scripts.azure.client import connect

    needs = assets.gather(recipe)
    cloud = connect()
    changed = f" SET={shlex.quote(arguments.set)}" if arguments.set else ""
    again = f"make cloud-train RECIPE={arguments.recipe}{changed}"
    work = Training(
        cloud=cloud,
        recipe=recipe,
        path=arguments.recipe,
        needs=assets.with_staged(cloud, needs),
        yes=arguments.yes,
        again=again,
    )
    done = train(work, detach=arguments.detach)
    if not isinstance(done, tuple):
        say(f"follow: {again}")
        print(
            json.dumps({"job": done.name, "status": done.status}) if arguments.json else done.name
        )
        return
    if arguments.json:
        print(json.dumps(result(work, *done), ensure_ascii=False, indent=2))
    else:
        print(done[2].id)
    if cloud.label():
        say(f"note:   {cloud.label()}")
    say(f"next:   make cloud-deploy RECIPE={arguments.recipe}")


if __name__ == "__main__":
    run_verb(main)

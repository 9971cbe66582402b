"""Whether the workspace's region has the machines of the recipe."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here

API = "2023-08-01-preview"


def check(here: Here) -> Iterator[Finding]:
    cloud, _ = here.account
    settings = here.recipe.cloud
    if cloud is None or settings.route == "azure_openai":
        yield Finding(check="machines", severity="skipped", sentence=_skipped(here))
        return
    place = cloud.workspace
    path = (
        f"/subscriptions/{place.subscription}/providers/Microsoft.MachineLearningServices"
        f"/locations/{place.location}/vmSizes"
    )
    listed = {str(size["name"]).lower() for size in cloud.rest.get(path, API)["value"]}
    for key in ("instance_type", "serve_instance_type"):
        machine = getattr(settings, key)
        if machine.lower() in listed:
            yield Finding(
                check="machines", severity="ok", sentence=f"{place.location} has {machine}"
            )
        else:
            yield Finding(
                check="machines",
                severity="error",
                sentence=f"{place.location} has no {machine} (cloud.{key})",
                remedy="choose another in the recipe; what there is: az ml compute list-sizes",
            )


def _skipped(here: Here) -> str:
    if here.recipe.cloud.route == "azure_openai":
        return "Azure OpenAI brings its own"
    return "no workspace is asked"

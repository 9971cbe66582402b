"""Whether the identities of job and endpoint may pull the image and read the rows."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here


def check(here: Here) -> Iterator[Finding]:
    cloud, _ = here.account
    if cloud is None or here.recipe.cloud.route == "azure_openai":
        yield Finding(check="roles", severity="skipped", sentence="no workspace is asked")
        return
    from scripts.azure import identities

    for what in ("train", "deploy"):
        lacking = identities.check(cloud, here.recipe, what)
        for sentence in lacking:
            yield Finding(
                check="roles",
                severity="error",
                sentence=sentence,
                remedy="give the role (it may take ten minutes to count), then make doctor again",
            )
        if not lacking:
            yield Finding(check="roles", severity="ok", sentence=f"{what}: nothing is missing")

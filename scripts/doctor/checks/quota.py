"""Cores that the recipe needs, against what the subscription has left."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here


def check(here: Here) -> Iterator[Finding]:
    cloud, _ = here.account
    settings = here.recipe.cloud
    if cloud is None or settings.route == "azure_openai":
        yield Finding(check="quota", severity="skipped", sentence="no quota of cores is asked for")
        return
    from scripts.azure import prices, quota

    trains, serves = map(prices.find, (settings.instance_type, settings.serve_instance_type))
    for need in quota.needed(settings, trains, serves, cloud):
        short = need.enough is False
        yield Finding(
            check="quota",
            severity="error" if short else "ok" if need.enough else "note",
            sentence=quota.line(need).partition(": ")[0],
            remedy=quota.MORE if short else "",
        )

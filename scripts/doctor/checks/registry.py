"""The workspace's container registry, without which no image of ours can run there."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here


def check(here: Here) -> Iterator[Finding]:
    cloud, _ = here.account
    if cloud is None or here.recipe.cloud.route != "command_job":
        yield Finding(check="registry", severity="skipped", sentence="no image of ours is pushed")
    elif not cloud.workspace.registry_id:
        yield Finding(
            check="registry",
            severity="error",
            sentence=f"workspace {cloud.workspace.name} has no container registry yet",
            remedy="az ml workspace update --container-registry ID, or make cloud-push says more",
        )
    else:
        name = cloud.workspace.registry_id.rpartition("/")[2]
        yield Finding(check="registry", severity="ok", sentence=f"{name}.azurecr.io")

"""Delete what bills of ours: endpoints, running jobs (cancelled), clusters; ask, delete, verify.

Ours is what carries the tag homeport=1. Another endpoint or cluster is deleted only where ALL=1 is
given and it is named: ENDPOINT=… or COMPUTE=…; another job is cancelled by `make cloud-cancel`.
Models, data and images stay; they cost storage only.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scripts.console import run_verb, say
from scripts.errors import CloudError, UsageError
from scripts.settings import flag_default

if TYPE_CHECKING:
    from scripts.azure.billing import Bill, Inventory
    from scripts.azure.client import Cloud
    from scripts.azure.endpoints import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What the user has named; nothing means all that is ours."""

    job: str = ""
    endpoint: str = ""
    compute: str = ""
    all: bool = False
    """Also what is not ours; only for what is named."""

    def __post_init__(self) -> None:
        if self.all and not (self.endpoint or self.compute):
            raise UsageError(
                "ALL=1 deletes what Homeport did not make, so it needs a name: add ENDPOINT=… or "
                "COMPUTE=…."
            )

    @property
    def names(self) -> dict[str, str]:
        return {"job": self.job, "endpoint": self.endpoint, "compute": self.compute}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to go."""

    kind: str
    name: str
    per_hour: float | None
    """US dollars; None where it is not known."""
    note: str

    def __str__(self) -> str:
        from scripts.azure.texts import money

        rate = "bills nothing now" if self.per_hour == 0 else f"{money(self.per_hour)} per hour"
        return f"{self.kind} {self.name}: {rate}{f', {self.note}' if self.note else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-down", description="Delete what bills, after asking, and verify."
    )
    for kind in ("endpoint", "job", "compute"):
        parser.add_argument(f"--{kind}", default=flag_default(kind.upper()), help="only this one")
    parser.add_argument(
        "--all",
        action="store_true",
        default=bool(flag_default("ALL")),
        help="also what is not ours; needs its name",
    )
    parser.add_argument(
        "--yes", action="store_true", default=bool(flag_default("YES")), help="do not ask"
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="one JSON object"
    )
    arguments = parser.parse_args()
    named = Named(
        job=arguments.job,
        endpoint=arguments.endpoint,
        compute=arguments.compute,
        all=arguments.all,
    )
    from scripts.azure.client import connect

    cloud = connect()
    found = down(cloud, named, arguments.yes)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))


def down(cloud: "Cloud", named: Named, yes: bool) -> dict[str, Any]:
    """List, ask, delete, and list again; CloudError where something is left."""
    from scripts.azure import billing, consent

    inventory = billing.survey(cloud)
    items = choose(inventory, billing.bill(inventory, datetime.now(UTC)), named)
    for item in items:
        say(f"delete: {item}")
    if items:
        consent.ask(f"Delete {len(items)} as listed, in {cloud.workspace.name}?", yes)
    try:
        failed = [error for item in items if (error := _delete(cloud, item))]
    except KeyboardInterrupt:
        say("left:   a deletion that was begun goes on; the rest bills: make cloud-down again")
        raise
    after = billing.survey(cloud) if items else inventory
    left = choose(after, billing.bill(after, datetime.now(UTC)), named)
    if left or failed:
        listed = "; ".join(map(str, left)) or "nothing of it"
        raise CloudError(
            f"{' '.join(failed)} Left in {cloud.workspace.name}: {listed}; next: make cloud-down"
        )
    bill = billing.bill(after, datetime.now(UTC))
    tell(cloud, bool(items), bill)
    return {
        "workspace": cloud.workspace.name,
        "deleted": [{"kind": item.kind, "name": item.name} for item in items],
        "per_hour": bill.ours().per_hour,
        "label": cloud.label(),
    }


def tell(cloud: "Cloud", deleted: bool, bill: "Bill") -> None:
    """What still bills, if anything."""
    from scripts.azure.texts import money

    name, own = cloud.workspace.name, bill.ours()
    label = f" ({cloud.label()})" if cloud.label() else ""
    if not deleted:
        say("delete: there is nothing to delete")
    if own.charges:
        names = ", ".join(charge.name for charge in own.charges)
        say(f"still:  {names} of ours bills {money(own.per_hour)} per hour in {name}{label}")
    else:
        say(f"done:   nothing of ours bills in {name}{label}")


def choose(inventory: "Inventory", bill: "Bill", named: Named) -> list[Item]:
    """What is to go, in that order: a cluster cannot be deleted under a job."""
    rates: dict[tuple[str, str], float | None] = {}
    for charge in bill.charges:
        # a deployment's name is endpoint/deployment, and it goes with its endpoint
        owner = "endpoint" if charge.what == "deployment" else charge.what
        key = (owner, charge.name.partition("/")[0])
        before = rates.get(key, 0.0)
        rates[key] = None if before is None or charge.per_hour is None else before + charge.per_hour
    found = [
        *(("job", job.name, job.ours, job.status) for job in inventory.jobs if job.running),
        *(
            ("endpoint", e.name, e.ours, f"with {_named(e.deployments)}")
            for e in inventory.endpoints
        ),
        *(
            ("compute", c.name, c.ours, f"{c.nodes} nodes up")
            for c in inventory.computes
            if c.state != "Deleting" or c.nodes
        ),
    ]
    names = named.names
    items = []
    for kind, name, ours, note in found:
        if any(names.values()):
            if names[kind] != name:
                continue
            if not ours and not named.all:
                raise UsageError(
                    f"{kind} {name} was not made by Homeport: add ALL=1 to delete it all the same."
                )
        elif not ours:
            continue
        items.append(Item(kind=kind, name=name, per_hour=rates.get((kind, name), 0.0), note=note))
    return items


def _named(deployments: "Sequence[Deployment]") -> str:
    return ", ".join(deployment.name for deployment in deployments) or "no deployment"


def _delete(cloud: "Cloud", item: Item) -> str:
    """Delete it and wait; the error's sentence, empty where it is gone."""
    from scripts.azure import endpoints, jobs

    ways: dict[str, Callable[[], Any]] = {
        "job": lambda: jobs.cancel(cloud, item.name),
        "endpoint": lambda: endpoints.delete(cloud, item.name),
        "compute": lambda: _delete_compute(cloud, item.name),
    }
    say(f"delete: {item.kind} {item.name} …")
    try:
        ways[item.kind]()
    except CloudError as error:  # the others are to go all the same
        return str(error)
    return ""


def _delete_compute(cloud: "Cloud", name: str) -> None:
    from scripts.azure import endpoints

    endpoints.settle(
        f"delete cluster {name}", lambda: cloud.ml.compute.begin_delete(name), gone=True
    )


if __name__ == "__main__":
    run_verb(main)

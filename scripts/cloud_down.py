"""Delete what bills of ours: endpoints, running jobs (cancelled), clusters; ask, delete, verify.

So it does with the deployments and jobs in the Azure OpenAI resources, and with FILES=1 with the
rows that we have uploaded there. Ours is what carries the tag homeport=1. Something else is deleted
only where ALL=1 is given and it is named: ENDPOINT=… (of Azure OpenAI: RESOURCE/DEPLOYMENT) or
COMPUTE=…; another job is cancelled by `make cloud-cancel`. Models, data and images stay; they cost
storage only.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scripts.azure.given import optional
from scripts.console import run_verb, say
from scripts.errors import CloudError, UsageError
from scripts.settings import flag_default

if TYPE_CHECKING:
    from scripts.azure.billing import Bill, Inventory
    from scripts.azure.client import Cloud
    from scripts.azure.endpoints import Deployment
    from train.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What the user has named; nothing means all that is ours."""

    job: str = ""
    endpoint: str = ""
    compute: str = ""
    all: bool = False
    """Also what is not ours; only for what is named."""
    files: bool = False
    """Also the rows that we have uploaded to Azure OpenAI."""

    def __post_init__(self) -> None:
        if self.all and not (self.endpoint or self.compute):
            raise UsageError(
                "ALL=1 deletes what Homeport did not make, so it needs a name: add ENDPOINT=… or "
                "COMPUTE=…."
            )

    @property
    def names(self) -> dict[str, str]:
        """The name that is given for each kind of thing; empty where none is."""
        return {
            "job": self.job,
            "tuning": self.job,
            "endpoint": self.endpoint,
            "openai": self.endpoint,
            "compute": self.compute,
            "file": "",
        }


WORDS = {
    "tuning": "Azure OpenAI job",
    "openai": "Azure OpenAI deployment",
    "file": "uploaded file",
}


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
        if self.kind == "tuning":
            rate = "bills its tokens"
        return f"{self.what} {self.name}: {rate}{f', {self.note}' if self.note else ''}"

    @property
    def what(self) -> str:
        """The kind, for people."""
        return WORDS.get(self.kind, self.kind)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-down", description="Delete what bills, after asking, and verify."
    )
    parser.add_argument(
        "--recipe",
        default=flag_default("RECIPE"),
        help="also the Azure OpenAI resource that this one deploys to, in whatever tenant",
    )
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    for kind in ("endpoint", "job", "compute"):
        parser.add_argument(f"--{kind}", default=flag_default(kind.upper()), help="only this one")
    parser.add_argument(
        "--all",
        action="store_true",
        default=bool(flag_default("ALL")),
        help="also what is not ours; needs its name",
    )
    parser.add_argument(
        "--files",
        action="store_true",
        default=bool(flag_default("FILES")),
        help="also our rows that lie in Azure OpenAI",
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
        files=arguments.files,
    )
    recipe = optional(arguments.recipe, arguments.set)
    from scripts.azure.client import connect

    cloud = connect()
    found = down(cloud, named, arguments.yes, recipe)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))


def down(cloud: "Cloud", named: Named, yes: bool, recipe: "Recipe | None" = None) -> dict[str, Any]:
    """List, ask, delete, and list again; CloudError where something is left."""
    from scripts.azure import billing, consent

    inventory = billing.survey(cloud, recipe)
    if inventory.unread:
        say(f"note:   Azure OpenAI could not be asked: {inventory.unread}")
    items = _items(cloud, inventory, named)
    for item in items:
        say(f"delete: {item}")
    if items:
        consent.ask(f"Delete {len(items)} as listed, in {cloud.workspace.name}?", yes)
    try:
        failed = [error for item in items if (error := _delete(cloud, item, inventory))]
    except KeyboardInterrupt:
        say("left:   a deletion that was begun goes on; the rest bills: make cloud-down again")
        raise
    after = billing.survey(cloud, recipe) if items else inventory
    left = _items(cloud, after, named) if items else []
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


def _items(cloud: "Cloud", inventory: "Inventory", named: Named) -> list[Item]:
    from scripts.azure import billing
    from scripts.azure.openai import inventory as openai

    items = choose(inventory, billing.bill(inventory, datetime.now(UTC)), named)
    if named.files and not any(named.names.values()):
        for file in openai.files(cloud):
            if file.ours:
                note = f"{file.name}, {file.bytes:,} bytes"
                items.append(Item(kind="file", name=file.id, per_hour=0.0, note=note))
    return items


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
        key = (owner, charge.name if owner == "openai" else charge.name.partition("/")[0])
        before = rates.get(key, 0.0)
        rates[key] = None if before is None or charge.per_hour is None else before + charge.per_hour
    found = [
        *(("job", job.name, job.ours, job.status) for job in inventory.jobs if job.running),
        *(("tuning", job.job, job.ours, job.status) for job in inventory.tuning),
        *(("openai", h.name, h.ours, f"{h.model}, {h.sku}") for h in inventory.hosted),
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


def _delete(cloud: "Cloud", item: Item, inventory: "Inventory") -> str:
    """Delete it and wait; the error's sentence, empty where it is gone."""
    from scripts.azure import endpoints, jobs
    from scripts.azure.openai import inventory as openai

    hosted = {hosted.name: hosted for hosted in inventory.hosted}
    tuning = {job.job: job for job in inventory.tuning}
    ways: dict[str, Callable[[], Any]] = {
        "job": lambda: jobs.cancel(cloud, item.name),
        "tuning": lambda: openai.cancel(cloud, tuning[item.name]),
        "openai": lambda: openai.delete(cloud, hosted[item.name]),
        "file": lambda: _delete_file(cloud, item.name),
        "endpoint": lambda: endpoints.delete(cloud, item.name),
        "compute": lambda: _delete_compute(cloud, item.name),
    }
    say(f"delete: {item.what} {item.name} …")
    try:
        ways[item.kind]()
    except CloudError as error:  # the others are to go all the same
        return str(error)
    return ""


def _delete_file(cloud: "Cloud", name: str) -> None:
    from scripts.azure.openai import inventory as openai

    for file in openai.files(cloud):
        if file.id == name:
            openai.delete_file(cloud, file)


def _delete_compute(cloud: "Cloud", name: str) -> None:
    from scripts.azure import endpoints

    endpoints.settle(
        f"delete cluster {name}", lambda: cloud.ml.compute.begin_delete(name), gone=True
    )


if __name__ == "__main__":
    run_verb(main)

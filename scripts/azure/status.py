"""What the workspace holds of ours and what it costs, as one JSON object and as a table of it.

    found = report(inventory, bill(inventory, now), now, images.passed)
    print("\\n".join(table(found)))

It asks nobody; billing.survey does.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from scripts.azure import prices
from scripts.azure.billing import Bill, Charge, Compute, Inventory, Job, cost
from scripts.azure.client import Workspace
from scripts.azure.endpoints import Deployment, Endpoint
from scripts.azure.openai.inventory import Hosted, Running
from scripts.azure.prices import per_hour as price
from scripts.azure.tags import MODEL, OWNER, RECIPE
from scripts.azure.texts import columns, money, span


class Passed(Protocol):
    """Whether an image answered on this machine (images.Passed)."""

    @property
    def same(self) -> bool: ...

    @property
    def sentence(self) -> str: ...


Found = dict[str, Any]


def report(
    workspace: Workspace,
    inventory: Inventory,
    bill: Bill,
    now: datetime,
    passed: Callable[[str], Passed],
    label: str = "",
) -> Found:
    """The JSON object of `make cloud-status`. Times are ISO 8601 in UTC, money is US dollars."""
    own = bill.ours()
    return {
        "workspace": workspace.name,
        "location": workspace.location,
        "label": label,
        "as_of": _iso(now),
        "prices_as_of": prices.table().as_of,
        "currency": "USD",
        "per_hour": round(own.per_hour, 4),
        "accrued": round(own.accrued, 4),
        "unknown_prices": own.unknown,
        "bills": [_charge(charge) for charge in own.charges],
        "endpoints": [_endpoint(e, now, passed) for e in inventory.endpoints if e.ours],
        "jobs": [_job(job, now) for job in inventory.jobs if job.ours],
        "computes": [_compute(compute) for compute in inventory.computes if compute.ours],
        "openai": {
            "deployments": [_hosted(h, now) for h in inventory.hosted if h.ours],
            "jobs": [_tuning(job) for job in inventory.tuning if job.ours],
            "unread": inventory.unread,
        },
        "others": [_charge(charge) for charge in bill.charges if not charge.ours],
    }


def _charge(charge: Charge) -> Found:
    return {
        "what": charge.what,
        "name": charge.name,
        "instance_type": charge.instance_type,
        "count": charge.count,
        "spot": charge.spot,
        "since": _iso(charge.since),
        "per_hour": _dollars(charge.per_hour),
        "accrued": _dollars(charge.accrued),
    }


def _hosted(hosted: Hosted, now: datetime) -> Found:
    return {
        "name": hosted.name,
        "model": hosted.model,
        "sku": hosted.sku,
        "since": _iso(hosted.since),
        "per_hour": _dollars(hosted.per_hour),
        "accrued": _dollars(cost(hosted.per_hour, hosted.since, now)),
    }


def _tuning(job: Running) -> Found:
    return {
        "name": job.job,
        "resource": job.resource.rpartition("/")[2],
        "status": job.status,
        "model": job.model,
        "since": _iso(job.since),
    }


def _endpoint(endpoint: Endpoint, now: datetime, passed: Callable[[str], Passed]) -> Found:
    expires = endpoint.expires
    return {
        "name": endpoint.name,
        "state": endpoint.state,
        "uri": endpoint.uri,
        "owner": endpoint.tags.get(OWNER, ""),
        "expires": _iso(expires),
        "expired": bool(expires and expires <= now),
        "deployments": [_deployment(d, now, passed) for d in endpoint.deployments],
    }


def _deployment(deployment: Deployment, now: datetime, passed: Callable[[str], Passed]) -> Found:
    rate = price(deployment.instance_type)
    per_hour = None if rate is None else rate * deployment.instances
    known = passed(deployment.image) if deployment.image else None
    return {
        "name": deployment.name,
        "state": deployment.state,
        "traffic": deployment.traffic,
        "model": deployment.model,
        "instance_type": deployment.instance_type,
        "instances": deployment.instances,
        "since": _iso(deployment.created),
        "per_hour": _dollars(per_hour),
        "accrued": _dollars(cost(per_hour, deployment.created, now)),
        "image": deployment.image,
        "passed_here": known is not None and known.same,
        "passed": _unproven(deployment) if known is None else known.sentence,
    }


def _unproven(deployment: Deployment) -> str:
    if MODEL in deployment.tags:
        return "an image of Azure's serves it"
    return "it was not made by Homeport"


def _job(job: Job, now: datetime) -> Found:
    rate = price(job.instance_type, spot=job.spot)
    per_hour = None if rate is None else rate * job.nodes
    return {
        "name": job.name,
        "status": job.status,
        "recipe": job.tags.get(RECIPE, ""),
        "compute": job.compute,
        "instance_type": job.instance_type,
        "nodes": job.nodes,
        "spot": job.spot,
        "created": _iso(job.created),
        "started": _iso(job.started),
        "ended": _iso(job.ended),
        "limit_seconds": job.limit.total_seconds() if job.limit else None,
        "cost": _dollars(cost(per_hour, job.started, job.ended or now)),
        "studio": job.studio,
    }


def _compute(compute: Compute) -> Found:
    return {
        "name": compute.name,
        "state": compute.state,
        "instance_type": compute.size,
        "spot": compute.spot,
        "nodes": compute.nodes,
        "least": compute.least,
        "most": compute.most,
    }


def table(found: Found) -> list[str]:
    """The object for people, line by line."""
    now = datetime.fromisoformat(found["as_of"])
    label = f" ({found['label']})" if found["label"] else ""
    lines = [f"workspace {found['workspace']} in {found['location']}{label}"]
    if found["endpoints"]:
        lines += ["", *_endpoints(found["endpoints"], now)]
    if found["jobs"]:
        lines += ["", *_jobs(found["jobs"], now)]
    if found["computes"]:
        lines += ["", *_computes(found["computes"])]
    if found["openai"]["deployments"] or found["openai"]["jobs"]:
        lines += ["", *_openai(found["openai"], now)]
    if found["openai"]["unread"]:
        lines += ["", f"Azure OpenAI could not be asked: {found['openai']['unread']}"]
    return [*lines, "", *summary(found)]


def summary(found: Found) -> list[str]:
    """What bills now, as sentences."""
    where = found["workspace"]
    lines = []
    if not found["bills"]:
        lines.append(f"nothing of ours bills in {where}")
    else:
        count = len(found["bills"])
        lines.append(
            f"bills now: {money(found['per_hour'])} per hour for {count} "
            f"{'thing' if count == 1 else 'things'}, {money(found['accrued'])} so far "
            f"(list prices of {found['prices_as_of']}); next: make cloud-down"
        )
    if found["unknown_prices"]:
        lines.append(
            f"the price of {', '.join(found['unknown_prices'])} is not known and not in the sums; "
            "CLOUD_PRICES names a file with prices of your own"
        )
    if others := found["others"]:
        lines.append(
            f"not ours, and untouched by these commands: {len(others)} more that bill here "
            f"({', '.join(sorted({other['name'] for other in others})[:5])})"
        )
    return lines


def _endpoints(rows: Sequence[Found], now: datetime) -> list[str]:
    cells = []
    notes = []
    for endpoint in rows:
        name = endpoint["name"]
        if not endpoint["deployments"]:
            cells.append([name, f"({endpoint['state']})", "", "", "", "", "", ""])
        for deployment in endpoint["deployments"]:
            cells.append(
                [
                    name,
                    f"{deployment['name']} ({deployment['state']})",
                    f"{deployment['traffic']} %",
                    deployment["model"],
                    f"{deployment['instances']} x {deployment['instance_type']}",
                    _dollars_cell(deployment["per_hour"]),
                    _since(deployment["since"], now),
                    _dollars_cell(deployment["accrued"]),
                ]
            )
            name = ""
            notes.append(f"  {deployment['name']}: {deployment['passed']}")
        notes.append(f"  {endpoint['name']}: {_expiry(endpoint, now)}")
    head = ["ENDPOINT", "DEPLOYMENT", "TRAFFIC", "MODEL", "MACHINE", "PER HOUR", "SINCE", "SO FAR"]
    return [*columns([head, *cells]), *notes]


def _expiry(endpoint: Mapping[str, Any], now: datetime) -> str:
    owner = f"of {endpoint['owner']}, " if endpoint["owner"] else ""
    if not endpoint["expires"]:
        return f"{owner}without an expiry"
    left = (datetime.fromisoformat(endpoint["expires"]) - now).total_seconds()
    if left <= 0:
        return (
            f"{owner}EXPIRED {span(-left)} ago; next: make cloud-down ENDPOINT={endpoint['name']}"
        )
    return f"{owner}expires in {span(left)}"


def _jobs(rows: Sequence[Found], now: datetime) -> list[str]:
    cells = [
        [
            job["name"],
            job["status"],
            f"{job['nodes']} x {job['instance_type'] or job['compute']}",
            _length(job, now),
            _dollars_cell(job["cost"]) if job["started"] else "",
        ]
        for job in rows
    ]
    return columns([["JOB", "STATUS", "MACHINE", "RAN", "COST"], *cells])


def _length(job: Mapping[str, Any], now: datetime) -> str:
    if not job["started"]:
        return ""
    end = datetime.fromisoformat(job["ended"]) if job["ended"] else now
    return span((end - datetime.fromisoformat(job["started"])).total_seconds())


def _computes(rows: Sequence[Found]) -> list[str]:
    cells = [
        [
            compute["name"],
            compute["state"],
            compute["instance_type"],
            f"{compute['nodes']} of {compute['least']} to {compute['most']}",
        ]
        for compute in rows
    ]
    return columns([["CLUSTER", "STATE", "MACHINE", "NODES"], *cells])


def _openai(found: Found, now: datetime) -> list[str]:
    """Azure OpenAI's deployments and jobs, each as a table."""
    tables = []
    if rows := found["deployments"]:
        cells = [
            [
                row["name"],
                row["model"],
                row["sku"],
                _dollars_cell(row["per_hour"]),
                _since(row["since"], now),
                _dollars_cell(row["accrued"]),
            ]
            for row in rows
        ]
        head = ["AZURE OPENAI", "MODEL", "SKU", "PER HOUR", "SINCE", "SO FAR"]
        tables += columns([head, *cells])
    if rows := found["jobs"]:
        cells = [
            [job["name"], job["status"], job["model"], _since(job["since"], now)] for job in rows
        ]
        tables += columns([["AZURE OPENAI JOB", "STATUS", "MODEL", "SINCE"], *cells])
    return tables


def _since(text: str | None, now: datetime) -> str:
    return span((now - datetime.fromisoformat(text)).total_seconds()) if text else "?"


def _dollars_cell(amount: float | None) -> str:
    return "?" if amount is None else money(amount)


def _dollars(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 4)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None

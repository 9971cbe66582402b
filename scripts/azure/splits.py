"""Who gets which share of an endpoint's requests, and what a new deployment is called. Asks nobody.

splits({"blue-1a2b3c4d": 100}, "green-5e6f7a8b", [10, 100])
    -> [{"blue-1a2b3c4d": 90, "green-5e6f7a8b": 10}, {"green-5e6f7a8b": 100}]
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from scripts.azure.endpoints import Deployment, Endpoint
from scripts.azure.tags import MARK, PREVIOUS

COLOURS = ("blue", "green")


def mark(**parts: object) -> str:
    """Eight hex digits of all that makes a deployment what it is."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def find_marked(endpoint: Endpoint | None, wanted: str) -> Deployment | None:
    """The deployment of this mark that we made here before, in whatever state."""
    there = endpoint.deployments if endpoint else ()
    return next((d for d in there if d.tags.get(MARK) == wanted), None)


def new_name(endpoint: Endpoint | None, wanted: str) -> str:
    """`COLOUR-MARK`, of the colour that has the smaller share of the traffic; blue at first."""
    shares = dict.fromkeys(COLOURS, 0)
    for name, percent in (endpoint.traffic if endpoint else {}).items():
        colour = name.partition("-")[0]
        if colour in shares:
            shares[colour] += percent
    return f"{min(COLOURS, key=lambda colour: shares[colour])}-{wanted}"


def splits(
    current: Mapping[str, int], new: str, percentages: Sequence[int]
) -> list[dict[str, int]]:
    """The traffic, step by step, from `current` until `new` has all of it.

    What is left of 100 is shared by the others as they share it now. Without others there is one
    step. Steps that `new` has passed already are left out.
    """
    if not without(current, new):
        return [] if current.get(new) == 100 else [{new: 100}]
    return [
        {**without(current, new, 100 - percent), new: percent}
        for percent in percentages
        if percent > current.get(new, 0)
    ]


def without(current: Mapping[str, int], name: str, total: int = 100) -> dict[str, int]:
    """The traffic with `name` left out: `total` percent, shared by the others as they share now."""
    others = {other: share for other, share in current.items() if share and other != name}
    if not others:
        return {}
    whole = sum(others.values())
    shares = {other: total * share // whole for other, share in others.items()}
    shares[max(others, key=lambda other: others[other])] += total - sum(shares.values())
    return {other: share for other, share in shares.items() if share}


def before(endpoint: Endpoint) -> Deployment | None:
    """The deployment that a rollback goes to, None where there is none.

    While a rollout is under way the older one with traffic; else the one that had it before, which
    has it already where a rollback was done; else the newest other one that is ready.
    """
    ready = [d for d in endpoint.deployments if d.state == "Succeeded"]
    if len(endpoint.traffic) > 1:
        return min((d for d in ready if d.traffic), key=_made, default=None)
    others = [d for d in ready if not d.traffic]
    remembered = next((d for d in ready if d.name == endpoint.tags.get(PREVIOUS)), None)
    return remembered or max(others, key=_made, default=None)


def surplus(endpoint: Endpoint | None, wanted: str = "") -> list[Deployment]:
    """Our deployments there without traffic, other than the wanted one: they only bill."""
    return [
        d
        for d in (endpoint.deployments if endpoint else ())
        if d.ours and not d.traffic and d.state != "Deleting" and d.tags.get(MARK) != (wanted or 0)
    ]


def _made(deployment: Deployment) -> str:
    return deployment.created.isoformat() if deployment.created else ""

"""Blue and green: a new deployment beside the old one, tried, then given the traffic step by step.

    result = roll_out(cloud, wanted, endpoint_spec, deployment_spec)

Resumable: a deployment of the same mark (model, image, machines, timeouts) is found and gone on
with, whatever state it is in. What cannot be brought to answer is deleted again, with the endpoint
where nothing else is served there. The old deployment stays, without traffic, and bills:
`make cloud-rollback` goes back to it, `make cloud-deploy FINISH=1` deletes it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.azure import causes, endpoints
from scripts.azure.billing import total
from scripts.azure.client import Cloud
from scripts.azure.endpoints import Deployment, Endpoint
from scripts.azure.prices import per_hour as price
from scripts.azure.retry import Refused
from scripts.azure.scoring import Client, ScoringError
from scripts.azure.splits import find_marked, new_name, splits, surplus, without
from scripts.azure.tags import PREVIOUS
from scripts.azure.texts import money, span
from scripts.console import say
from scripts.errors import CloudError

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint

TRIALS = 3
"""Requests to the new deployment after each step."""
LOG_SHOWN = 25
"""Lines of each container's log that are shown when a deployment fails."""
FOLLOW_SECONDS = 3600.0
"""Longest look at a deployment that another call began; Azure gives up before."""


class Failed(CloudError):
    """The new deployment does not work, and is not worth keeping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to have the traffic at the end."""

    endpoint: str
    mark: str
    instance_type: str
    instances: int
    steps: Sequence[int]
    """Rising percentages, the last one 100."""
    seconds: float
    """How long a client waits for an answer."""
    smoke: Mapping[str, Any]
    """The trial request."""
    path: str
    """Where it goes: `/score`, or what lies beside it."""
    tags: Mapping[str, str]
    """Set on the endpoint when the traffic moves: its new expiry."""
    again: str
    """The command that goes on with this."""
    down: str
    """The command that deletes the endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a rollout led to."""

    endpoint: Endpoint
    deployment: str
    kept: tuple[Deployment, ...]
    """Deployments without traffic, which bill on."""


def roll_out(
    cloud: Cloud,
    wanted: Wanted,
    endpoint_spec: Callable[[], "ManagedOnlineEndpoint"],
    deployment_spec: Callable[[str], "ManagedOnlineDeployment"],
) -> Result:
    """Have the wanted deployment answer and take all traffic.

    Raises CloudError where Azure or the container refuses, after what was made for it is deleted
    and the traffic is back; where Azure cannot be reached all is left as it is. That, and Ctrl-C,
    say what is left and bills.
    """
    try:
        start = _endpoint(cloud, wanted, endpoint_spec)
        # before anything bills: who may not read the key cannot try the deployment out
        asking = client(cloud, start, wanted.seconds, wanted.path)
        try:
            name = _deployment(cloud, start, wanted, deployment_spec)
            _try_out(cloud, wanted, asking, name)
            _move_traffic(cloud, wanted, asking, name)
        except (Failed, Refused) as error:
            raise Failed(f"{error} {_undo(cloud, wanted, start)}") from error
        final = endpoints.find(cloud, wanted.endpoint)
    except Failed:
        raise
    except (CloudError, KeyboardInterrupt) as stop:
        say(left_behind(cloud, wanted))
        raise stop
    if final is None or final.traffic != {name: 100}:
        raise CloudError(
            f"endpoint {wanted.endpoint} was changed by another meanwhile; next: make cloud-status"
        )
    kept = tuple(d for d in final.deployments if not d.traffic)
    return Result(endpoint=final, deployment=name, kept=kept)


def _endpoint(
    cloud: Cloud, wanted: Wanted, spec: Callable[[], "ManagedOnlineEndpoint"]
) -> Endpoint:
    """The endpoint, made where it is not there."""
    found = endpoints.find(cloud, wanted.endpoint)
    if found and found.state == "Failed" and not found.deployments:
        say(f"target: {wanted.endpoint} failed before; it is made anew")
        endpoints.delete(cloud, wanted.endpoint)
        found = None
    if found is None:
        say(f"target: making {wanted.endpoint}, which takes a minute or two")
        endpoints.create(cloud, spec())
    found = _until(
        cloud,
        wanted,
        lambda endpoint: endpoint.state not in ("Creating", "Provisioning"),
        f"endpoint {wanted.endpoint}",
    )
    if found.state == "Failed" and not found.deployments:
        raise CloudError(f"endpoint {wanted.endpoint} could not be made; next: {wanted.down}")
    if found.state == "Failed":  # its deployments answer all the same, and a change mends it
        say(f"target: {wanted.endpoint} failed while it was changed; going on with it")
    say(f"target: {found.uri}")
    return found


def _deployment(
    cloud: Cloud,
    start: Endpoint,
    wanted: Wanted,
    spec: Callable[[str], "ManagedOnlineDeployment"],
) -> str:
    """Name of the deployment, which is ready; Failed or Refused otherwise."""
    found = find_marked(start, wanted.mark)
    if found and found.state in ("Failed", "Canceled"):
        say(f"deploy: {found.name} failed before; it is deleted first")
        if found.traffic:
            endpoints.set_traffic(cloud, start.name, without(start.traffic, found.name), {})
        endpoints.delete_deployment(cloud, start.name, found.name)
        found = None
    if found and found.state == "Deleting":
        endpoints.delete_deployment(cloud, start.name, found.name)
        found = None
    if found:
        say(f"deploy: {found.name} is there ({found.state}); going on with it")
        return _followed(cloud, wanted, found.name)
    for old in surplus(start, wanted.mark):
        say(f"deploy: deleting {old.name}, which takes no traffic")
        endpoints.delete_deployment(cloud, start.name, old.name)
    name = new_name(start, wanted.mark)
    say(f"deploy: making {name} on {wanted.instances} x {wanted.instance_type}")
    try:
        poller = endpoints.start_deployment(cloud, spec(name))
    except Refused as refused:
        # the service may have taken a request whose answer was lost, and be at it now
        if refused.status == endpoints.CONFLICT and _marked(cloud, wanted):
            return _followed(cloud, wanted, name)
        raise Failed(_refusal(refused)) from refused
    began = time.monotonic()
    try:
        endpoints.wait(
            f"make deployment {name}", poller, lambda: say(_progress(wanted, name, _since(began)))
        )
    except CloudError as error:
        # the service's words are here only; whether it failed, or the looking on, is said there
        found = _marked(cloud, wanted)
        if found is None or not (found.in_progress or found.state == "Succeeded"):
            raise Failed(_diagnosis(cloud, wanted, name, str(error))) from error
    return _followed(cloud, wanted, name)


def _followed(cloud: Cloud, wanted: Wanted, name: str) -> str:
    """Look on until the deployment is ready; Failed where it does not become so."""
    began = time.monotonic()

    def ready(endpoint: Endpoint) -> bool:
        found = endpoint.deployment(name)
        return found is None or not found.in_progress

    found = _until(
        cloud, wanted, ready, f"deployment {name}", lambda: _progress(wanted, name, _since(began))
    ).deployment(name)
    if found is None:
        raise Failed(f"deployment {name} was deleted meanwhile.")
    if found.state != "Succeeded":
        raise Failed(_diagnosis(cloud, wanted, name, f"deployment {name}: {found.state}"))
    return name


def _since(began: float) -> float:
    return time.monotonic() - began


def _refusal(refused: Refused) -> str:
    """The refusal, and its cause where it is a known one."""
    cause = causes.explain(str(refused))
    return f"{refused} Known cause: {cause}" if cause else str(refused)


def _progress(wanted: Wanted, name: str, seconds: float) -> str:
    rate = hourly(wanted)
    so_far = money(None if rate is None else rate * seconds / 3600)
    return f"deploy: {name} is being made since {span(seconds)} ({so_far} so far)"


def hourly(wanted: Wanted) -> float | None:
    """USD per hour of the deployment; None where the price is not known."""
    rate = price(wanted.instance_type)
    return None if rate is None else rate * wanted.instances


def _until(
    cloud: Cloud,
    wanted: Wanted,
    ready: Callable[[Endpoint], bool],
    what: str,
    progress: Callable[[], str] | None = None,
) -> Endpoint:
    """The endpoint when it is `ready`; CloudError where it is gone, or after FOLLOW_SECONDS."""
    began = told = time.monotonic()
    while True:
        found = endpoints.find(cloud, wanted.endpoint)
        if found is None:
            raise CloudError(f"endpoint {wanted.endpoint} was deleted meanwhile; {wanted.again}")
        if ready(found):
            return found
        moment = time.monotonic()
        if moment - began > FOLLOW_SECONDS:
            raise CloudError(f"{what} is not ready after {span(moment - began)}.")
        if progress and moment - told > endpoints.PROGRESS_SECONDS:
            told = moment
            say(progress())
        time.sleep(endpoints.POLL_SECONDS)


def _marked(cloud: Cloud, wanted: Wanted) -> Deployment | None:
    return find_marked(endpoints.find(cloud, wanted.endpoint), wanted.mark)


def _diagnosis(
    cloud: Cloud, wanted: Wanted, name: str, words: str, *, logs_only: bool = False
) -> str:
    """Show the end of both containers' logs; `words`, and the cause where it is a known one.

    With `logs_only` it is sought in the logs alone.
    """
    found = endpoints.logs(cloud, wanted.endpoint, name)
    for container, text in found.items():
        say(f"--- log of {container}")
        say("\n".join(text.splitlines()[-LOG_SHOWN:]) or "(empty)")
    say("---")
    cause = causes.explain("\n".join([*([] if logs_only else [words]), *found.values()]))
    words = words.rstrip(".")
    return f"{words}. Known cause: {cause}" if cause else f"{words}."


def client(cloud: Cloud, endpoint: Endpoint, seconds: float, path: str = endpoints.SCORE) -> Client:
    """A client of the endpoint, with its key."""
    uri = endpoints.address(endpoint.uri, path)
    return Client(endpoint.name, uri, endpoints.key(cloud, endpoint.name), seconds=seconds)


def _try_out(cloud: Cloud, wanted: Wanted, asking: Client, name: str, trials: int = 1) -> None:
    """Ask the deployment by its name; Failed where it does not answer."""
    began = time.monotonic()
    for _ in range(trials):
        try:
            asking.ask(wanted.smoke, deployment=name, settling=True)
        except ScoringError as error:
            if not error.status:
                raise  # the way there is broken, and the deployment may be well
            words = f"deployment {name} was made, but does not answer: {error.reason}"
            raise Failed(_diagnosis(cloud, wanted, name, words, logs_only=True)) from error
    say(f"deploy: {name} answered {trials} of {trials}, {_since(began) / trials:.1f} s each")


def _move_traffic(cloud: Cloud, wanted: Wanted, asking: Client, name: str) -> None:
    """Step by step until it has all; Failed where it stops answering on the way."""
    found = endpoints.find(cloud, wanted.endpoint)
    current = found.traffic if found else {}
    others = without(current, name)
    tags = dict(wanted.tags)
    if others:
        tags[PREVIOUS] = max(others, key=lambda other: others[other])
    steps = splits(current, name, wanted.steps)
    if not steps and found:
        endpoints.set_traffic(cloud, wanted.endpoint, current, tags)
    for step in steps:
        endpoints.set_traffic(cloud, wanted.endpoint, step, tags)
        say(f"moved:  {', '.join(f'{share} % to {to}' for to, share in step.items())}")
        _try_out(cloud, wanted, asking, name, TRIALS)


def _undo(cloud: Cloud, wanted: Wanted, start: Endpoint) -> str:
    """Delete what does not work, and say so; the traffic of others is as it was before."""
    try:
        endpoint = endpoints.find(cloud, wanted.endpoint)
        new = find_marked(endpoint, wanted.mark)
        if endpoint is None:
            return "Nothing of it is left."
        others = [d for d in endpoint.deployments if not new or d.name != new.name]
        if start.traffic and not without(start.traffic, new.name if new else ""):
            return f"It had all the traffic before and is left as it is; {wanted.down} deletes it."
        if not others and endpoint.ours:
            say(f"target: deleting {endpoint.name}, which serves nothing else")
            endpoints.delete(cloud, endpoint.name)
            return "The endpoint was deleted; nothing of it bills."
        if new:
            if new.traffic:
                back = without(endpoint.traffic, new.name)
                endpoints.set_traffic(cloud, endpoint.name, back, {})
                say(f"moved:  back to {', '.join(back) or 'nobody'}")
            endpoints.delete_deployment(cloud, endpoint.name, new.name)
        return "The new deployment was deleted; the others serve as before."
    except CloudError as error:
        return f"It could not be deleted ({error}) and bills {_rate(wanted)}; next: {wanted.down}"


def _rate(wanted: Wanted) -> str:
    return f"{money(hourly(wanted))} per hour"


def left_behind(cloud: Cloud, wanted: Wanted) -> str:
    """What is there now, that it bills, and the two commands."""
    commands = f"go on: {wanted.again}; delete it: {wanted.down}"
    try:
        endpoint = endpoints.find(cloud, wanted.endpoint)
    except CloudError:
        return (
            f"left:  perhaps endpoint {wanted.endpoint} with a deployment that bills "
            f"{_rate(wanted)}; {commands}"
        )
    if endpoint is None:
        return f"left:  nothing; go on: {wanted.again}"
    if not endpoint.deployments:
        return f"left:  endpoint {endpoint.name}, which bills nothing by itself; {commands}"
    listed = ", ".join(f"{d.name} ({d.state})" for d in endpoint.deployments)
    return (
        f"left:  endpoint {endpoint.name} with {listed}, which bills "
        f"{money(total(endpoint.deployments))} per hour until it is deleted; {commands}"
    )

"""Which way to fine-tune a recipe: what a login tells goes over what is known offline.

    advice = advise(recipe, cloud)       # cloud=None: in a second, without asking anybody
    print(text(advice, path)); as_json(advice)

The rules are judgement.py's. What may not be asked (a role that is missing, a registry that does
not answer) is a note, and the offline knowledge stands. It changes nothing.
"""

import dataclasses
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scripts.azure import foundation, judgement, prices, registries
from scripts.azure import quota as quotas
from scripts.azure.foundation import Foundation
from scripts.azure.judgement import Facts, Verdict
from scripts.azure.quota import Quota
from scripts.azure.texts import columns, money
from scripts.errors import CloudError, UsageError
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud

WIDTH = 100
"""Columns of a line of the explanations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """All four routes, and the one that we would take."""

    recipe: str
    asked: str
    """The workspace that was asked; empty: offline."""
    day: str
    """ISO date that it was given for."""
    verdicts: tuple[Verdict, ...]
    taken: str
    """Route; empty where none is open."""
    why: str
    own: str
    """The recipe's own route."""
    notes: tuple[str, ...]
    label: str = ""
    """`rehearsed, not Azure` there."""


def advise(recipe: Recipe, cloud: "Cloud | None") -> Advice:
    """Judge all routes; with `cloud` by what registries, quota and resources say today."""
    notes: list[str] = []
    facts = ask(recipe, cloud, notes) if cloud else Facts()
    verdicts = judgement.judge(recipe, facts)
    best, why = judgement.take(recipe, verdicts)
    table = prices.table()
    notes.append(f"prices: {table.region}, list price without tax, looked up {table.as_of}")
    return Advice(
        recipe=recipe.name,
        asked=cloud.workspace.name if cloud else "",
        day=datetime.now(UTC).date().isoformat(),
        verdicts=verdicts,
        taken=best.route if best else "",
        why=why,
        own=recipe.cloud.route,
        notes=tuple(notes),
        label=cloud.label() if cloud else "",
    )


def ask(recipe: Recipe, cloud: "Cloud", notes: list[str]) -> Facts:
    """What the login tells; what it may not ask becomes a note."""
    name = judgement.of_base(recipe)
    models: dict[str, Foundation | str] = {}
    if name:
        place = registries.parse(name)
        bare = f"{place.registry}/{place.name}"
        try:
            models[bare] = foundation.read(cloud, judgement.with_model(recipe, name))
        except UsageError as error:
            models[bare] = str(error)
        except CloudError as error:
            notes.append(f"registry {place.registry} was not asked: {error}")
    known = {bare: model for bare, model in models.items() if not isinstance(model, str)}
    return Facts(
        models=models,
        quota=_quota(recipe, cloud, next(iter(known.values()), None)),
        resources=_resources(cloud, notes),
    )


def _quota(recipe: Recipe, cloud: "Cloud", model: Foundation | None) -> dict[str, Quota]:
    """For training on the recipe's machine, and on the one that would be proposed instead."""
    best = foundation.cheapest(model, "train") if model else None
    names = dict.fromkeys([recipe.cloud.instance_type, *([best.name] if best else [])])
    found = {}
    for name in names:
        try:
            machine = prices.find(name)
        except UsageError:
            continue
        asked = quotas.needed(recipe.cloud, machine, machine, cloud)
        found[machine.name] = next(one for one in asked if one.what == "train")
    return found


def _resources(cloud: "Cloud", notes: list[str]) -> tuple[str, ...] | None:
    from scripts.azure.openai import accounts

    try:
        return tuple(account.name for account in accounts.in_group(cloud))
    except CloudError as error:
        notes.append(f"Azure OpenAI resources were not asked: {error}")
        return None


def text(advice: Advice, path: str) -> str:
    """For people: the table, why each is as it is, and what to do."""
    where = f"workspace {advice.asked}" if advice.asked else "not asked (offline)"
    rows = [("", "route", "today", "training costs at most", "serving per hour")]
    for verdict in advice.verdicts:
        rows.append(
            (
                "→" if verdict.route == advice.taken else "",
                verdict.route,
                verdict.state,
                _dollars(verdict, verdict.ceiling),
                _dollars(verdict, verdict.per_hour),
            )
        )
    label = f"; {advice.label}" if advice.label else ""
    lines = [f"{advice.recipe} on {advice.day}; {where}{label}", "", *columns(rows)]
    for verdict in advice.verdicts:
        lines += ["", f"{verdict.route}: {verdict.title}", *_explained(verdict)]
    lines += ["", *(f"note: {note}" for note in advice.notes)]
    if advice.taken:
        lines += [f"we take {advice.taken}: {advice.why}", f"next:   {command(advice, path)}"]
    else:
        lines.append(advice.why)
    return "\n".join(lines)


def command(advice: Advice, path: str) -> str:
    """The command that shows the plan of the route that is taken."""
    change = next(v.change for v in advice.verdicts if v.route == advice.taken)
    changed = f' SET="{" ".join(change)}"' if change else ""
    return f"make cloud-plan RECIPE={shlex.quote(path)}{changed}"


def _explained(verdict: Verdict) -> Iterator[str]:
    yield from _wrapped(verdict.state, verdict.reason)
    if verdict.state == "closed":
        return
    yield from _wrapped("train", verdict.train)
    yield from _wrapped("serve", verdict.serve)
    if verdict.ignores:
        yield from _wrapped("ignores", ", ".join(verdict.ignores))
    yield from _wrapped("lacks", "; ".join(verdict.lacks))
    if verdict.change:
        yield from _wrapped("change", " ".join(verdict.change))


def _wrapped(what: str, said: str) -> list[str]:
    lines = textwrap.wrap(said, WIDTH - 11, break_long_words=False, break_on_hyphens=False)
    heads = [f"  {what}", *[""] * len(lines)]
    return [f"{head:<11}{line}" for head, line in zip(heads, lines, strict=False)]


def _dollars(verdict: Verdict, amount: float | None) -> str:
    if verdict.state == "closed" and not verdict.train:
        return "-"
    return money(amount) if amount is not None else "not known"


def as_json(advice: Advice) -> dict[str, Any]:
    """For programs; dollars."""
    return dataclasses.asdict(advice)

"""What goes wrong on a cloud, tried in the local Azure: named faults, all faults, and kills.

    found = run(read("all", "", "7"), azure, environ, "recipes/rehearsal.yaml")

`make rehearse FAULTS=1` are the named cases (rehearse_faults.py), `FAULTS=all` every fault against
every verb besides (rehearse_matrix.py), `KILLS=50` the kills (rehearse_kills.py). Each prints its
table, and writes its figures to outputs/trials/.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts import rehearse_faults, rehearse_figures, rehearse_kills, rehearse_matrix
from scripts.console import say
from scripts.errors import UsageError
from scripts.local_train import find_recipe
from scripts.rehearsal import LocalAzure
from scripts.rehearse_figures import figure
from scripts.rehearse_verbs import Verbs
from scripts.settings import relative


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which trials."""

    faults: str = ""
    """1 or all."""
    kills: int = 0
    seed: int = 7

    @property
    def any(self) -> bool:
        return bool(self.faults or self.kills)

    @property
    def real(self) -> bool:
        """Whether something is trained and served for real."""
        return bool(self.faults)

    def runtime(self, given: str) -> str:
        """Where it runs: stand-ins are processes of this machine."""
        if self.faults != "all" and not self.kills:
            return given
        if given == "docker":
            raise UsageError(
                "FAULTS=all and KILLS=… run jobs and servers as stand-ins, which are processes of "
                "this machine: leave RUNTIME out, or say RUNTIME=host."
            )
        return "host"


def read(faults: str, kills: str, seed: str) -> Asked:
    """What the flags ask for; UsageError where that is none of it."""
    if faults not in ("", "1", "all"):
        raise UsageError(
            f"FAULTS={faults} is no choice: 1 runs the named cases, all every fault against every "
            "verb too."
        )
    for name, value in (("KILLS", kills or "1"), ("SEED", seed)):
        if not value.isdecimal() or (name == "KILLS" and int(value) < 1):
            raise UsageError(f"{name}={value} is no number from 1 on, such as {name}=50.")
    return Asked(faults=faults, kills=int(kills or 0), seed=int(seed))


@dataclass(slots=True)
class Found:
    """What came of the trials, for the report."""

    findings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)


def run(asked: Asked, azure: LocalAzure, environ: Mapping[str, str], recipe: str) -> Found:
    """The trials that were asked for, one after the other."""
    found = Found()
    with Verbs(environ) as verbs:
        if asked.faults:
            _faults(found, azure, verbs, recipe, every=asked.faults == "all")
        if asked.kills:
            _kills(found, azure, verbs, recipe, asked)
    report = azure.ask("report")
    _keep(found, "every request was known and valid", not report["problems"], report["problems"])
    return found


def _faults(found: Found, azure: LocalAzure, verbs: Verbs, recipe: str, *, every: bool) -> None:
    began = time.monotonic()
    figures = []
    for outcome in rehearse_faults.run_cases(azure, verbs, recipe):
        case = outcome.case
        told = f"make {case.target} ended with {outcome.code}: {outcome.told()}"
        _keep(found, case.name, outcome.holds, told)
        code = -1 if outcome.code is None else outcome.code
        figures.append(figure(case.name, code, "exit code", f"= {case.code}", outcome.holds))
    found.seconds["named faults"] = round(time.monotonic() - began, 1)
    if every:
        began = time.monotonic()
        recipes = {**rehearse_matrix.RECIPES, "command_job": recipe}
        sets = {route: find_recipe(Path(path), []).rehearsal.set for route, path in recipes.items()}
        say("\n── every fault against every verb")
        cells = rehearse_matrix.Matrix(azure, verbs, recipes, sets).run()
        seconds = time.monotonic() - began
        say(f"\n{rehearse_matrix.table(cells)}")
        for cell in cells:
            if cell.wrong:
                name = f"{cell.fault}: {cell.verb}, {cell.route}"
                _keep(found, name, False, cell.wrong)
        good = sum(not cell.wrong for cell in cells)
        met = sum(bool(cell.met) for cell in cells)
        shown = f"{good} of {len(cells)} cells; in {met} of them the fault was met"
        _keep(found, "every verb ends as it should under every fault", good == len(cells), shown)
        found.tables["faults"] = [asdict(cell) for cell in cells]
        found.seconds["all faults"] = round(seconds, 1)
        figures += rehearse_matrix.figures(cells, seconds)
    say(f"written: {relative(rehearse_figures.write('faults', figures))}")


def _kills(found: Found, azure: LocalAzure, verbs: Verbs, recipe: str, asked: Asked) -> None:
    began = time.monotonic()
    trial = rehearse_kills.Kills(azure, verbs, recipe, asked.seed)
    kills = trial.run(asked.kills)
    left = trial.left()
    seconds = time.monotonic() - began
    figures = rehearse_kills.figures(kills, left, seconds)
    for one in figures:
        if one["met"] is not None:
            _keep(found, one["name"], one["met"], f"{one['value']} ({one['target']})")
    for number, kill in enumerate(kills, 1):
        if not kill.holds:
            _keep(found, f"kill {number}", False, rehearse_kills.line(number, kill))
    found.tables["kills"] = [asdict(kill) for kill in kills]
    found.seconds["kills"] = round(seconds, 1)
    say(f"written: {relative(rehearse_figures.write('kills', figures))}")


def _keep(found: Found, name: str, holds: bool, shown: object) -> None:
    found.findings[name] = {"holds": holds, "found": shown}

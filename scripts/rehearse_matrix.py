"""Every fault that the local Azure knows, against every cloud verb, on every route.

    make rehearse FAULTS=all

Where a fault can strike any request, it strikes each one of the verb's once, so that none is left
untried. A verb must end well, or with 6 or 3 and one sentence that says what is wrong and what to
do; it may not hang, nor leave anything that bills and was not named; the same command without the
fault must end well. A fault that a verb never met proves nothing, and is shown as such. Jobs and
servers are stand-ins; what is real is told by FAULTS=1 and by the rehearsals of the routes.
"""

import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.console import say
from scripts.rehearsal import LocalAzure, is_running
from scripts.rehearse_faults import PROBE
from scripts.rehearse_figures import figure
from scripts.rehearse_verbs import NOT_LOGIN, Done, Verbs
from scripts.settings import CACHE, OUTPUTS, typed

NAME = "fault"
"""Begins the names of the recipes, and so of all that they make."""
BASES = CACHE / "rehearsal-faults"
EACH = {"path": NOT_LOGIN, "once_each": True}
FAULTS: dict[str, Mapping[str, object]] = {
    "429 on each request": {"kind": "status", "status": 429, "retry_after": 0.0, **EACH},
    "503 on each request": {"kind": "status", "status": 503, "retry_after": 0.0, **EACH},
    "403 on all requests": {"kind": "status", "status": 403, "path": NOT_LOGIN, "times": 10_000},
    "each request reset": {"kind": "reset", **EACH},
    "each answer lost": {"kind": "lost_reply", **EACH},
    "SAS expired": {"kind": "expired_sas"},
    "provisioning fails": {"kind": "failed_provisioning", "cause": PROBE},
    "no quota": {"kind": "quota"},
    "machine taken away": {"kind": "preempt", "seconds": 0.3},
    "operation is slow": {"kind": "slow", "seconds": 3.0},
    "image not pulled": {"kind": "image_pull"},
}
VERBS = {
    "command_job": (
        *("cloud-plan", "cloud-push", "cloud-stage", "cloud-train", "cloud-logs", "cloud-cancel"),
        *("cloud-download", "cloud-deploy", "cloud-rollback", "cloud-key", "ask", "cloud-status"),
        *("advise", "cloud-down"),
    ),
    "registry_pipeline": ("cloud-train", "cloud-deploy", "cloud-status", "cloud-down"),
    "finetuning_job": ("cloud-train", "cloud-deploy", "cloud-status", "cloud-down"),
    "azure_openai": ("cloud-train", "cloud-deploy", "cloud-status", "cloud-down"),
}
RECIPES = {
    "command_job": "recipes/rehearsal.yaml",
    "registry_pipeline": "recipes/phi-3-mini-ultrachat.yaml",
    "finetuning_job": "recipes/mistral-7b-samsum.yaml",
    "azure_openai": "recipes/azure-openai-ja.yaml",
}
REMEDY = re.compile(r"\bmake |\baz |again|check |lower |delete |ask (for|the)|have the role")
"""What a sentence that helps has in it."""
NOT_MET = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fault, one verb."""

    route: str
    verb: str
    fault: str
    met: int
    """How often the fault struck."""
    code: int | None
    said: str
    """The error's sentence, else nothing."""
    again: int | None
    """Exit code of the same command without the fault."""
    wrong: Sequence[str]
    """What is not as it must be."""

    @property
    def shown(self) -> str:
        """In the table: how the verb ended."""
        if self.wrong:
            return "NOT SO"
        return str(self.code) if self.met else NOT_MET


class Matrix:
    """The trial; `run` does it."""

    def __init__(
        self,
        azure: LocalAzure,
        verbs: Verbs,
        recipes: Mapping[str, str],
        sets: Mapping[str, Sequence[str]],
    ) -> None:
        """By route, the recipe and the overrides that its rehearsal needs."""
        self._recipes = recipes
        self._azure = azure
        self._verbs = verbs
        self._sets = sets
        self._models: dict[str, str] = {}
        self._count = 0

    def run(self) -> list[Cell]:
        cells = []
        try:
            for route, targets in VERBS.items():
                self._models[route] = self._train(route)
                if route == "command_job":
                    self._deploy_two(route)
                for verb in targets:
                    began = time.monotonic()
                    column = [self._cell(route, verb, fault) for fault in FAULTS]
                    cells += column
                    shown = "  ".join(f"{cell.shown:>6}" for cell in column)
                    say(f"{route:18s} {verb:15s} {shown}  {time.monotonic() - began:5.0f} s")
                self._verbs.well("cloud-down")
        finally:
            shutil.rmtree(BASES, ignore_errors=True)
            for folder in OUTPUTS.glob(f"{NAME}-*"):
                shutil.rmtree(folder)
        return cells

    def _cell(self, route: str, verb: str, fault: str) -> Cell:
        self._count += 1
        name = f"{NAME}-{self._count}-x"
        given = self._prepare(route, verb, name)
        billed = self._billing()
        self._azure.tell("POST", "faults", FAULTS[fault])
        done = self._verbs.run(verb, **given)
        met = len(self._azure.ask("faults")["struck"])
        self._azure.tell("DELETE", "faults")
        errors = [e for e in done.err.splitlines() if e.startswith("error: ")]
        wrong = list(problems(done, errors))
        for thing in self._billing() - billed:
            if done.code and thing not in done.err:
                wrong.append(f"{thing} bills, which was not said")
        again = None
        if met or done.code:
            again = (second := self._verbs.run(verb, **given)).code
            if again or "Traceback" in second.err:
                wrong.append(f"given again it ended with {again}: {second.err[-600:]}")
        cell = Cell(
            route=route,
            verb=verb,
            fault=fault,
            met=met,
            code=done.code,
            said=errors[-1].removeprefix("error: ") if errors else "",
            again=again,
            wrong=wrong,
        )
        if wrong:
            say(f"NOT SO: {route} {verb}, {fault}: {wrong}\n{done.err[-2500:]}")
        return cell

    def _prepare(self, route: str, verb: str, name: str) -> dict[str, str]:
        """Bring about what the verb needs; the variables of its command."""
        own = self._given(route, name)
        base = self._given(route, f"{NAME}-base")
        match verb:
            case "cloud-train" | "cloud-plan" | "cloud-push" | "advise":
                return own
            case "cloud-stage":
                folder = BASES / name
                folder.mkdir(parents=True)
                for file in ("config.json", "model.safetensors"):
                    (folder / file).write_text(name)
                return {**own, "SET": f"{own['SET']} model.base={typed(folder)}"}
            case "cloud-cancel":
                long = {**own, "SET": f"{own['SET']} training.max_steps=1200"}
                self._verbs.well("cloud-train", **{**long, "DETACH": "1"})
                return long
            case "cloud-download":
                shutil.rmtree(OUTPUTS / f"{NAME}-base", ignore_errors=True)
                return base
            case "cloud-deploy":
                if route == "azure_openai":  # five deployments at most
                    self._verbs.well("cloud-down")
                return {**own, "MODEL": self._models[route]}
            case "cloud-rollback":
                self._verbs.well("cloud-deploy", **{**base, "MODEL": self._models["second"]})
                return base
            case "cloud-down":
                self._verbs.well("cloud-deploy", **{**own, "MODEL": self._models[route]})
                return {"RECIPE": own["RECIPE"], "SET": own["SET"]}
            case "ask":
                return {**base, "TARGET": "cloud", "PROMPT": "?"}
        return base

    def _given(self, route: str, name: str, seed: int = 1) -> dict[str, str]:
        words = [*self._sets[route], f"name={name}", f"training.seed={seed}"]
        words += ["training.max_steps=8"] if route == "command_job" else ["training.epochs=3"]
        return {"RECIPE": self._recipes[route], "SET": " ".join(words)}

    def _train(self, route: str, seed: int = 1) -> str:
        """A model that cloud-deploy takes."""
        given = self._given(route, f"{NAME}-base", seed)
        told = json.loads(self._verbs.well("cloud-train", "--json", **given).out)
        return str(told["job"] if route == "azure_openai" else told["model"])

    def _deploy_two(self, route: str) -> None:
        """An endpoint that has something to go back to."""
        self._models["second"] = self._train(route, seed=2)
        given = self._given(route, f"{NAME}-base")
        for model in (self._models[route], self._models["second"]):
            self._verbs.well("cloud-deploy", **{**given, "MODEL": model.removeprefix("azureml:")})

    def _billing(self) -> set[str]:
        """Names of the deployments and running jobs that are there."""
        rows: list[dict[str, Any]] = self._azure.ask("resources")["resources"]
        return {
            row["id"].rpartition("/")[2]
            for row in rows
            if "/deployments/" in row["id"] or is_running(row)
        }


def problems(done: Done, errors: Sequence[str]) -> Sequence[str]:
    """What is wrong with how a verb ended under a fault."""
    wrong = []
    if done.code is None:
        wrong.append("it did not end")
    elif done.code not in (0, 3, 6):
        wrong.append(f"it ended with {done.code}")
    if "Traceback" in done.err:
        wrong.append("a traceback")
    if done.code in (3, 6):
        if len(errors) != 1:
            wrong.append(f"{len(errors)} sentences")
        elif not REMEDY.search(errors[0]):
            wrong.append(f"no next command: {errors[0]}")
    return wrong


def table(cells: Sequence[Cell]) -> str:
    """One table for each route: a row for each fault, a column for each verb."""
    shown = {(cell.route, cell.verb, cell.fault): cell.shown for cell in cells}
    lines = []
    for route in dict.fromkeys(cell.route for cell in cells):
        targets = VERBS[route]
        heads = [target.removeprefix("cloud-") for target in targets]
        lines.append(f"{route:22s}{''.join(f'{head:>10s}' for head in heads)}")
        for fault in FAULTS:
            row = [shown.get((route, target, fault), "") for target in targets]
            lines.append(f"{fault:22s}{''.join(f'{each:>10s}' for each in row)}")
        lines.append("")
    lines.append("0: ended well; 6, 3: refused in one sentence, and well when given again;")
    lines.append(f"{NOT_MET}: the verb never met this fault, so it shows nothing")
    return "\n".join(lines)


def figures(cells: Sequence[Cell], seconds: float) -> list[dict[str, Any]]:
    """What is measured, for outputs/trials/faults.json: a figure for each cell that was met."""
    met = [cell for cell in cells if cell.met]
    good = sum(not cell.wrong for cell in cells)
    told = [
        figure("cells as they must be", good, "cells", f"= {len(cells)}", good == len(cells)),
        figure("cells whose fault was met", len(met), "cells"),
        figure("cells whose fault was not met", len(cells) - len(met), "cells"),
        figure("time", round(seconds), "s"),
    ]
    for cell in met:
        name = f"{cell.fault}: {cell.verb}, {cell.route}"
        code = -1 if cell.code is None else cell.code
        told.append(figure(name, code, "exit code", "0, 3 or 6", not cell.wrong))
    return told

"""Verbs killed at random points, and given again: they must end as if nothing had happened.

    make rehearse KILLS=50 [SEED=7]

A verb gets SIGKILL (its whole process group) at a random moment of its usual time, or at a random
request of it: while the service has it and has done nothing, or has done all and not answered yet.
The same command again must then end well, and leave what an undisturbed run leaves, by the
service's own account: one job, one endpoint with one deployment, one version of each model and data
asset with the same bytes; after cloud-down nothing that bills. Jobs and servers are stand-ins.
"""

import hashlib
import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scripts.console import say
from scripts.rehearsal import FOLDER, LocalAzure, is_running
from scripts.rehearse_figures import figure
from scripts.rehearse_verbs import NOT_LOGIN, Done, Verbs
from scripts.settings import CACHE, OUTPUTS, typed

MIX = (
    *("cloud-train", "cloud-deploy", "cloud-stage", "cloud-train", "cloud-deploy"),
    *("cloud-rollback", "cloud-train", "cloud-deploy", "cloud-download", "cloud-down"),
)
"""The verbs in turn; cloud-down comes last, since it deletes what the others have left billing."""
NAME = "kill"
"""Begins the names of the recipes, and so of all that they make."""
STEPS = 15
"""Of a stand-in's training, a tenth of a second each."""
BASES = CACHE / "rehearsal-kills"
"""Folders that stand for base models to be staged."""
CHANGES = "PUT|POST|PATCH|DELETE"
SETTLED_SECONDS = 0.2
"""What the service had in its hands when the verb died is done then."""
TOLD = re.compile(
    r"already|registered before|is there \(|nothing (is|to)|again|going on|is submitted|has all"
    r" traffic|^done:|^download:|^(base|model|data):"
)
"""The line of the second run that is worth showing."""

How = Literal["time", "before", "after"]
State = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One verb that was killed and given again."""

    verb: str
    point: str
    """Where it was killed."""
    stood: str
    """What there was of it then."""
    said: str
    """What the second run made of it."""
    code: int | None
    jobs: int
    endpoints: int
    different: State
    """What is otherwise than after an undisturbed run; empty where it is the same."""
    orphans: int
    """Servers that run without a deployment."""

    @property
    def holds(self) -> bool:
        one = self.jobs <= 1 and self.endpoints <= 1 and not self.orphans
        return self.code == 0 and not self.different and one


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """An undisturbed run of a verb."""

    seconds: float
    changes: int
    """Requests of it that change something."""
    requests: int
    state: State


class Kills:
    """The trial; `run` does it."""

    def __init__(self, azure: LocalAzure, verbs: Verbs, recipe: str, seed: int) -> None:
        self._azure = azure
        self._verbs = verbs
        self._recipe = recipe
        self._random = random.Random(seed)  # noqa: S311 - the same points again
        self._usual: dict[str, Usual] = {}

    def run(self, count: int) -> list[Kill]:
        """So many kills, and cloud-down at the end."""
        shutil.rmtree(BASES, ignore_errors=True)
        done: list[Kill] = []
        try:
            self._make_models()
            for verb in dict.fromkeys(MIX[:count]):
                self._usual[verb] = self._undisturbed(verb)
                say(f"usual:  {verb} takes {self._usual[verb].seconds:.1f} s")
            tried = 0
            while len(done) < count:
                tried += 1
                kill = self._kill(MIX[len(done) % len(MIX)], f"{NAME}-no-{tried}-x")
                if kill is None:  # it was over before its point came
                    continue
                done.append(kill)
                say(line(len(done), kill))
            self._verbs.well("cloud-down")
        finally:
            shutil.rmtree(BASES, ignore_errors=True)
            for folder in OUTPUTS.glob(f"{NAME}-*"):
                shutil.rmtree(folder)
        return done

    def left(self) -> Sequence[Any]:
        """What bills, by the verb that looks and by the service itself."""
        bills = json.loads(self._verbs.well("cloud-status", "--json").out)["bills"]
        return [*bills, *_billing(self._azure.ask("resources"))]

    def _make_models(self) -> None:
        """Two versions of one model, for whatever deploys."""
        for seed in ("1", "2"):
            self._verbs.well("cloud-train", **self._given("cloud-train", f"{NAME}-base", seed))

    def _undisturbed(self, verb: str) -> Usual:
        name = f"{NAME}-usual-{verb.removeprefix('cloud-')}"
        self._prepare(verb, name)
        before = len(_requests())
        done = self._verbs.well(verb, **self._given(verb, name))
        asked = [each for each in _requests()[before:] if re.search(NOT_LOGIN, each["path"])]
        changes = sum(bool(re.fullmatch(CHANGES, each["method"])) for each in asked)
        state = self._state(verb, name)
        return Usual(seconds=done.seconds, changes=changes, requests=len(asked), state=state)

    def _prepare(self, verb: str, name: str) -> None:
        """What the verb needs to be there."""
        if verb == "cloud-stage":
            folder = BASES / name
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")
            for part in range(8):
                (folder / f"{part}.safetensors").write_bytes(f"{name} {part}".encode() * 50_000)
        if verb == "cloud-download":
            shutil.rmtree(OUTPUTS / f"{NAME}-base", ignore_errors=True)
        if verb in ("cloud-rollback", "cloud-down"):
            deploy = self._given("cloud-deploy", name)
            self._verbs.well("cloud-deploy", **deploy)
            if verb == "cloud-rollback":
                self._verbs.well("cloud-deploy", **{**deploy, "MODEL": f"{NAME}-base:2"})
            else:
                long = {**self._given("cloud-train", name), "DETACH": "1"}
                self._verbs.well("cloud-train", **{**long, "SET": f"{long['SET']}000"})

    def _given(self, verb: str, name: str, seed: str = "1") -> dict[str, str]:
        """The variables of the command."""
        words = f"name={name} training.seed={seed} training.max_steps={STEPS}"
        given = {"RECIPE": self._recipe, "SET": words}
        if verb == "cloud-stage":
            given["SET"] += f" model.base={typed(BASES / name)}"
        if verb == "cloud-deploy":
            given["MODEL"] = f"{NAME}-base:1"
        if verb == "cloud-download":
            given["SET"] = words.replace(name, f"{NAME}-base")
        return {} if verb == "cloud-down" else given

    def _kill(self, verb: str, name: str) -> Kill | None:
        self._prepare(verb, name)
        given = self._given(verb, name)
        point = self._disturb(verb, given)
        if point is None:
            return None
        stood = _standing(self._about(verb, name))
        again = self._verbs.run(verb, **given)
        about = self._about(verb, name)
        rows = self._azure.ask("resources")
        different = _difference(self._usual[verb].state, self._state(verb, name))
        if again.code or "Traceback" in again.err:
            say(again.err[-3000:])
            different = [*different, "Traceback"] if "Traceback" in again.err else different
        deployed = {row["id"].lower() for row in rows["resources"] if "/deployments/" in row["id"]}
        return Kill(
            verb=verb,
            point=point.replace(name, "…"),
            stood=stood,
            said=_told(again),
            code=again.code,
            jobs=sum("/jobs/" in row["id"] for row in about),
            endpoints=sum(row["id"].split("/")[-2] == "onlineEndpoints" for row in about),
            different=different,
            orphans=len(set(rows["serving"]) - deployed),
        )

    def _disturb(self, verb: str, given: Mapping[str, str]) -> str | None:
        """Begin the verb and kill it; where, or None where it had ended before."""
        usual, dice = self._usual[verb], self._random
        how: How = dice.choice(["time", "before", "after"])
        if how == "time" or not usual.requests:
            moment = dice.uniform(0, usual.seconds)
            running = self._verbs.start(verb, **given)
            time.sleep(moment)
            alive = running.running()
            running.kill()
            running.wait()
            time.sleep(SETTLED_SECONDS)
            return f"after {moment:.1f} of {usual.seconds:.1f} s" if alive else None
        only_changes = bool(usual.changes) and dice.random() < 0.7
        number = dice.randrange(usual.changes if only_changes else usual.requests)
        fault = {
            "kind": "hold" if how == "before" else "hold_reply",
            "method": CHANGES if only_changes else ".*",
            "path": NOT_LOGIN,
            "skip": number,
        }
        self._azure.tell("POST", "faults", fault)
        running = self._verbs.start(verb, **given)
        while running.running() and not self._azure.ask("faults")["held"]:
            time.sleep(0.02)
        struck = self._azure.ask("faults")["struck"]
        running.kill()
        running.wait()
        self._azure.tell("DELETE", "faults")
        time.sleep(SETTLED_SECONDS)
        return f"{how} {_short(struck[0].partition(': ')[2])}" if struck else None

    def _about(self, verb: str, name: str) -> list[dict[str, Any]]:
        """What of the service's is this recipe's; everything that can bill for cloud-down."""
        rows: list[dict[str, Any]] = self._azure.ask(f"resources?hashed={name}")["resources"]
        return [row for row in rows if f"/{name}" in row["id"] or f"/base-{name}" in row["id"]]

    def _state(self, verb: str, name: str) -> State:
        """What stands at the end, with names and hashes of names taken out."""
        if verb == "cloud-download":
            folder = OUTPUTS / f"{NAME}-base"
            return sorted(_file(folder, path) for path in folder.rglob("*"))
        found = [_row(row, name) for row in self._about(verb, name)]
        if verb == "cloud-down":
            found += _billing(self._azure.ask("resources"))
        return sorted(found)


def figures(kills: Sequence[Kill], left: Sequence[Any], seconds: float) -> list[dict[str, Any]]:
    """What is measured, for outputs/trials/kills.json."""
    count = len(kills)
    jobs, endpoints = max(k.jobs for k in kills), max(k.endpoints for k in kills)
    well, same = sum(k.code == 0 for k in kills), sum(not k.different for k in kills)
    orphans = sum(k.orphans for k in kills)
    told = [
        figure("ended well when given again", well, "kills", f"= {count}", well == count),
        figure("same state as undisturbed", same, "kills", f"= {count}", same == count),
        figure("most jobs of one recipe", jobs, "jobs", "<= 1", jobs <= 1),
        figure("most endpoints of one recipe", endpoints, "endpoints", "<= 1", endpoints <= 1),
        figure("servers without a deployment", orphans, "servers", "= 0", not orphans),
        figure("things that bill after cloud-down", len(left), "things", "= 0", not left),
    ]
    told.append(figure("all kills", count, "kills"))
    for verb, number in Counter(kill.verb for kill in kills).items():
        told.append(figure(f"kills of {verb}", number, "kills"))
    return [*told, figure("time", round(seconds), "s")]


def line(number: int, kill: Kill) -> str:
    """One row of the table."""
    verdict = "same state" if kill.holds else f"NOT SO: exit {kill.code}, {kill.different}"
    return (
        f"{number:3d}  {kill.verb:14s}  {kill.point:44s}  {kill.stood:40s}  "
        f"{kill.jobs} jobs, {kill.endpoints} endpoints  {verdict}  {kill.said}"
    )


def _requests() -> list[dict[str, Any]]:
    """What the service was asked so far."""
    lines = (FOLDER / "journal" / "requests.jsonl").read_text().splitlines()
    return [json.loads(each) for each in lines]


def _row(row: Mapping[str, Any], name: str) -> str:
    tail = row["id"].partition("/workspaces/")[2].partition("/")[2]
    # the copy of the recipe has the recipe's name in it
    sha256 = "" if "-recipe/" in tail else row["sha256"][:12]
    if "/base-" in f"/{tail}":  # made for this trial alone
        sha256 = "bytes" if sha256 else ""
    traffic = json.dumps(row["traffic"], sort_keys=True) if row["traffic"] else ""
    words = f"{tail} {row['state']} {traffic}".replace(name, "NAME")
    return f"{re.sub(r'[0-9a-f]{6,}', '#', words)} {sha256}".strip()


def _billing(rows: Mapping[str, Any]) -> State:
    """What of the service's is there or runs, and bills."""
    found = [
        f"{row['id'].rpartition('/workspaces/')[2]} {row['state']}"
        for row in rows["resources"]
        if "/onlineEndpoints/" in row["id"] or "/deployments/" in row["id"] or is_running(row)
    ]
    return [*found, *rows["serving"]]


def _standing(rows: Sequence[Mapping[str, Any]]) -> str:
    """In short: which kinds there are in which state."""
    kinds = Counter(
        f"{row['id'].split('/versions/')[0].split('/')[-2].rstrip('s')} {row['state']}".strip()
        for row in rows
    )
    return ", ".join(f"{n} {kind}" if n > 1 else kind for kind, n in kinds.items()) or "nothing"


def _difference(usual: State, now: State) -> State:
    missing, more = Counter(usual) - Counter(now), Counter(now) - Counter(usual)
    return [*(f"-{each}" for each in missing), *(f"+{each}" for each in more)]


def _file(folder: Path, path: Path) -> str:
    tail = re.sub(r"\d{8}-\d{6}", "#", path.relative_to(folder).as_posix())
    if path.is_symlink():
        return f"{tail} -> {re.sub(r'[0-9-]{8,}', '#', str(path.readlink()))}"
    if path.is_dir():
        return f"{tail}/"
    return f"{tail} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _short(request: str) -> str:
    """`PUT onlineEndpoints/x/deployments/y` of the whole path."""
    method, _, path = request.partition(" ")
    tail = path.rpartition("/workspaces/")[2].partition("/")[2] or path.lstrip("/")
    return f"{method} {tail if len(tail) < 34 else f'{tail[:33]}…'}"


def _told(done: Done) -> str:
    """What the second run said of it: its error, else how it went on."""
    lines = [" ".join(each.split()) for each in done.err.splitlines() if each.strip()]
    errors = [each for each in lines if each.startswith("error:")]
    shown = [each for each in lines if TOLD.search(each)]
    return (errors or shown or lines or ["nothing"])[0][:100]

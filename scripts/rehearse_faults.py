"""What goes wrong on a cloud, injected into the local Azure, and what the verbs make of it.

    make rehearse FAULTS=1

Every case names a fault, the verb that meets it, and what must be true after: the exit code, the
sentence, how many jobs there are, that nothing is left that bills. Without Docker the jobs and
servers are stand-ins of a second, but for the cases that are called REALLY: there one is trained,
taken away, goes on from its checkpoint and is served. It runs no case against Azure.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.console import say
from scripts.errors import CommandError
from scripts.rehearsal import REALLY, LocalAzure
from scripts.rehearse_verbs import Done, Verbs

QUICK = (
    "training.max_steps=2 training.checkpoint_steps=1 evaluation.rows=1 evaluation.max_new_tokens=4"
)
"""Overrides for a job of seconds: what it learns does not matter here."""
SECONDS = 600.0
"""Longest that a verb may take."""
PROBE = "Liveness probe failed: HTTP probe failed with statuscode: 502"
"""As Azure words it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that goes wrong."""

    name: str
    fault: Mapping[str, object] = field(default_factory=dict)
    target: str = "cloud-train"
    recipe: str = ""
    """Its name; empty for one of the case's own, or of the model that all deploy."""
    overrides: str = ""
    """Of the recipe, besides QUICK."""
    code: int = 0
    """Exit code that the verb must end with."""
    says: str = ""
    """Pattern that its messages must contain."""
    kill_at: str = ""
    """Pattern of the message at which the verb is killed (SIGKILL), to be given again."""
    jobs: int = 1
    """Jobs that there must be of this recipe afterwards, counting attempts."""


CASES = (
    Case(
        name="429 with Retry-After when the job is submitted",
        fault={"kind": "status", "status": 429, "method": "PUT", "path": "/jobs/", "times": 2},
        says="Completed",
    ),
    Case(
        name="503 while the log is followed",
        fault={"kind": "status", "status": 503, "path": "/history/", "times": 3},
        says="again in",
    ),
    Case(
        name="connections reset while the job is looked up",
        fault={"kind": "reset", "method": "GET", "path": "/jobs/", "times": 2},
        says="Completed",
    ),
    Case(
        name="the answer to the submission is lost",
        fault={"kind": "lost_reply", "method": "PUT", "path": "/jobs/"},
        says="Completed",
    ),
    Case(
        name="kill -9 right after the submission, then the same command",
        kill_at="is submitted",
        says="nothing is submitted|has done this already",
    ),
    Case(
        name="the SAS of the upload has expired",
        fault={"kind": "expired_sas"},
        says="Completed",
    ),
    Case(
        name="the machine of a spot job is taken away",
        fault={"kind": "preempt", "cause": "step 3/6"},
        recipe=REALLY,
        overrides="cloud.spot=true training.max_steps=6 training.logging_steps=1",
        says=r"training: goes on from checkpoint-[1-5]",
    ),
    Case(
        name="no quota for the job",
        fault={"kind": "quota", "path": "/jobs/"},
        code=6,
        says="quota.*Known cause",
        jobs=0,
    ),
    Case(
        name="the image cannot be pulled to the job",
        fault={"kind": "image_pull"},
        code=6,
        says="image",
    ),
    Case(
        name="no quota for the deployment",
        fault={"kind": "quota", "path": "/deployments/"},
        target="cloud-deploy",
        code=6,
        says="quota.*Known cause",
    ),
    Case(
        name="the deployment fails while it is made",
        fault={"kind": "failed_provisioning", "path": "/deployments/", "cause": PROBE},
        target="cloud-deploy",
        code=6,
        says="502",
    ),
    Case(
        name="the image cannot be pulled to the deployment",
        fault={"kind": "image_pull"},
        target="cloud-deploy",
        code=6,
        says="image",
    ),
    Case(
        name="making the deployment is slow",
        fault={"kind": "slow", "path": "/deployments/", "seconds": 8},
        target="cloud-deploy",
        recipe=REALLY,
        says="has all traffic",
    ),
)


@dataclass(slots=True)
class Outcome:
    """What became of a case."""

    case: Case
    code: int | None
    said: str
    jobs: int
    bills: Sequence[Any]

    @property
    def holds(self) -> bool:
        case = self.case
        left = case.target == "cloud-deploy" and case.code == 0  # a deployment that worked bills
        return (
            self.code == case.code
            and bool(re.search(case.says, self.said))
            and "Traceback" not in self.said
            and (case.target != "cloud-train" or self.jobs == case.jobs)
            and (left or not self.bills)
        )

    def told(self) -> str:
        """What the verb said of it: its error, else the line that shows how it went on."""
        lines = [" ".join(line.split()) for line in self.said.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:")]
        shown = [line for line in lines if re.search(self.case.says, line)]
        return (errors or shown or lines or ["nothing"])[-1]


def run_cases(azure: LocalAzure, verbs: Verbs, recipe: str) -> list[Outcome]:
    """Every case in turn; each that trains has a recipe of its own, so that no job is another's."""
    outcomes: list[Outcome] = []
    deployed = "case-deployed"
    made = verbs.start("cloud-train", **given(recipe, deployed)).wait(SECONDS)
    if made.code:
        say(made.err)
        raise CommandError("a quick training without faults failed; see above", 1)
    for number, case in enumerate(CASES, 1):
        say(f"\n── {case.name}")
        own = f"case-{number}-x" if case.target == "cloud-train" else deployed
        name = case.recipe or own
        words = given(recipe, name, case.overrides)
        if case.fault:
            azure.tell("POST", "faults", case.fault)
        if case.kill_at:
            kill_at(case, verbs, words)
        done = verbs.start(case.target, **words).wait(SECONDS)
        azure.tell("DELETE", "faults")
        bills = json.loads(verbs.run("cloud-status", "--json", **words).out)["bills"]
        found = [row["id"] for row in azure.ask("resources")["resources"]]
        jobs = sum(f"/jobs/{name}-" in each for each in found)
        outcome = Outcome(case, done.code, done.err, jobs, bills)
        outcomes.append(outcome)
        say(
            f"{'ok' if outcome.holds else 'NOT SO'}: exit {outcome.code}, {jobs} jobs, "
            f"bills: {outcome.bills or 'nothing'}: {outcome.told()}"
        )
        if not outcome.holds:
            say(done.err[-3000:])
        if outcome.bills:
            verbs.run("cloud-down", **words)
    return outcomes


def given(recipe: str, name: str, overrides: str = "") -> dict[str, str]:
    """The variables of a command about the recipe of that name."""
    return {"RECIPE": recipe, "SET": f"{QUICK} name={name} {overrides}".strip()}


def kill_at(case: Case, verbs: Verbs, words: Mapping[str, str]) -> Done:
    """Start the verb and kill it as soon as it says `case.kill_at`."""
    verb = verbs.start(case.target, **words)
    while verb.running() and not re.search(case.kill_at, verb.said()):
        time.sleep(0.02)
    verb.kill()
    return verb.wait()

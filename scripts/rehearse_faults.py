"""What goes wrong on a cloud, injected into the local Azure, and what the verbs make of it.

    make rehearse FAULTS=1

Every case names a fault, the verb that meets it, and what must be true after: the exit code, the
sentence, how many jobs there are, that nothing is left that bills. It runs no case against Azure.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts import setup
from scripts.console import say
from scripts.rehearsal import LocalAzure
from scripts.settings import ROOT

QUICK = (
    "training.max_steps=2 training.checkpoint_steps=1 evaluation.rows=1 evaluation.max_new_tokens=4"
)
"""Overrides for a job of seconds: what it learns does not matter here."""


PROBE = "Liveness probe failed: HTTP probe failed with statuscode: 502"
"""As Azure words it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that goes wrong."""

    name: str
    fault: Mapping[str, object] = field(default_factory=dict)
    target: str = "cloud-train"
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
        fault={"kind": "preempt", "seconds": 8},
        overrides="cloud.spot=true training.max_steps=60",
        says="goes on",
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
        says="has all traffic",
    ),
)


@dataclass(slots=True)
class Outcome:
    """What became of a case."""

    case: Case
    code: int
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


def run_cases(azure: LocalAzure, environ: Mapping[str, str], recipe: str) -> list[Outcome]:
    """Every case in turn; each has a recipe of its own, so that no job is another one's."""
    outcomes: list[Outcome] = []
    made = run("cloud-train", environ, recipe, QUICK)
    if made.returncode:
        say(made.stderr)
        raise RuntimeError("a quick training without faults failed")
    for number, case in enumerate(CASES, 1):
        say(f"\n── {case.name}")
        overrides = QUICK
        if case.target == "cloud-train":
            overrides = f"{QUICK} training.seed={number} {case.overrides}"
        if case.fault:
            control(azure, "POST", case.fault)
        if case.kill_at:
            kill_at(case, environ, recipe, overrides)
        done = run(case.target, environ, recipe, overrides)
        control(azure, "DELETE")
        status = json.loads(run("cloud-status", environ, recipe, overrides, "--json").stdout)
        name = planned_job(environ, recipe, overrides)
        jobs = [job for job in status["jobs"] if str(job["name"]).startswith(name)]
        outcome = Outcome(case, done.returncode, done.stderr, len(jobs), status["bills"])
        outcomes.append(outcome)
        say(
            f"{'ok' if outcome.holds else 'NOT SO'}: exit {outcome.code}, {len(jobs)} jobs, "
            f"bills: {outcome.bills or 'nothing'}: {outcome.told()}"
        )
        if not outcome.holds:
            say(done.stderr[-3000:])
        if outcome.bills:
            run("cloud-down", environ, recipe, overrides)
    return outcomes


def planned_job(environ: Mapping[str, str], recipe: str, overrides: str) -> str:
    """The name of the job that this recipe and these overrides make."""
    plan = json.loads(run("cloud-plan", environ, recipe, overrides, "--json").stdout)
    return str(plan["job"])


def command(target: str, *flags: str) -> list[str]:
    return [str(setup.python()), "-m", f"scripts.{target.replace('-', '_')}", *flags]


def variables(environ: Mapping[str, str], recipe: str, overrides: str) -> dict[str, str]:
    return {**environ, "RECIPE": recipe, "SET": overrides, "YES": "1"}


def run(
    target: str, environ: Mapping[str, str], recipe: str, overrides: str, *flags: str
) -> subprocess.CompletedProcess[str]:
    """The verb as make runs it."""
    return subprocess.run(
        command(target, *flags),
        cwd=ROOT,
        env=variables(environ, recipe, overrides),
        capture_output=True,
        text=True,
    )


def kill_at(case: Case, environ: Mapping[str, str], recipe: str, overrides: str) -> None:
    """Start the verb and kill it as soon as it says `case.kill_at`."""
    verb = subprocess.Popen(
        command(case.target),
        cwd=ROOT,
        env=variables(environ, recipe, overrides),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with verb:
        assert verb.stderr is not None  # noqa: S101 - for mypy: it is a pipe
        for line in verb.stderr:
            if re.search(case.kill_at, line):
                os.killpg(verb.pid, signal.SIGKILL)


def control(azure: LocalAzure, method: str, body: Mapping[str, object] | None = None) -> None:
    """Ask the local Azure for a fault, or for none any more."""
    import requests

    with requests.Session() as session:
        session.trust_env = False  # the control is beside the proxy, not behind it
        session.request(
            method, f"{azure.control()}/faults", json=body, timeout=10
        ).raise_for_status()

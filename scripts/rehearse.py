"""Rehearse the cloud path: the verbs that run on Azure, against a local Azure, then taken away.

    make rehearse [RECIPE=…] [RUNTIME=docker|host]    all of it, and a verdict
    make rehearse FAULTS=1 | FAULTS=all | KILLS=50    what goes wrong instead (rehearse_trials.py)
    make rehearsal-up, rehearsal-down                 the local Azure alone, to type the verbs

Nothing in it is a stand-in but Azure itself: the SDK, the storage protocol, the images, the
training and the server are the real ones. What a rehearsal cannot show stands in the README.
"""

import argparse
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts import rehearse_trials, setup
from scripts.console import run_verb, say
from scripts.docker import Compose
from scripts.errors import CommandError, VerbError
from scripts.host import Host
from scripts.local_serve import SAMPLE
from scripts.local_train import find_recipe, read_set
from scripts.rehearsal import FOLDER, LocalAzure, containers, local_azure, shell_line
from scripts.runtime import choose_device, choose_runtime, probe
from scripts.settings import (
    OUTPUTS,
    ROOT,
    environment,
    flag_default,
    relative,
    without_secrets,
)
from train.recipe import Recipe

RECIPE = "recipes/rehearsal.yaml"
WEIGHTS = "model.safetensors"
PRINT_CURL = """
import sys
from pathlib import Path
from scripts.azure import routes
from scripts.azure.client import connect
from scripts.local_train import find_recipe
recipe = find_recipe(Path(sys.argv[1]), sys.argv[3:])
print(routes.of(recipe).curl(connect(), recipe, sys.argv[2]))
"""
JOURNAL = FOLDER / "journal"
FAILED = 4
"""Exit code of a rehearsal that ran and failed its check."""


@dataclass(slots=True)
class Rehearsal:
    """One run through the cloud path, and what it found."""

    azure: LocalAzure
    recipe: Recipe
    path: Path
    overrides: Sequence[str]
    """Those of the recipe's own `rehearsal.set`, and after them the user's."""
    environ: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    """Of trials, for the report."""

    def step(self, title: str, work: Callable[[], Any]) -> Any:
        """Do one step, timed; its result."""
        say(f"\n── {title}")
        began = time.monotonic()
        try:
            return work()
        finally:
            self.seconds[title] = round(time.monotonic() - began, 1)

    def verb(self, target: str, *flags: str, **variables: str) -> str:
        """Run a cloud verb as make runs it; its stdout. CommandError where it fails."""
        shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        say(f"$ make {target}{' ' if shown else ''}{shown}")
        done = subprocess.run(
            [str(setup.python()), "-m", f"scripts.{target.replace('-', '_')}", *flags],
            cwd=ROOT,
            env={**self.verb_environ(), **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise CommandError(f"make {target} failed; the reason stands above.", done.returncode)
        return done.stdout

    def verb_environ(self) -> dict[str, str]:
        """What every verb of this rehearsal finds in its environment."""
        given = {"RECIPE": str(self.path), "SET": shlex.join(self.overrides), "YES": "1"}
        return {**self.environ, **given}

    def json(self, target: str, **variables: str) -> Any:
        return json.loads(self.verb(target, "--json", **variables))

    def check(self, name: str, holds: bool, shown: object) -> None:
        """Keep a finding; the verdict needs all of them."""
        self.findings[name] = {"holds": holds, "found": shown}
        say(f"{'ok' if holds else 'NOT SO'}: {name}: {shown}")


def rehearse(run: Rehearsal) -> None:
    """Every cloud verb in the order a user types them, and what must be true after each."""
    run.step("plan", lambda: run.verb("cloud-plan"))
    trained = run.step("train", lambda: run.json("cloud-train"))
    again = run.step("train again", lambda: run.json("cloud-train"))
    run.check(
        "the same command finds the finished job", again["job"] == trained["job"], again["job"]
    )
    run.step("deploy", lambda: run.json("cloud-deploy"))
    run.step("ask", lambda: ask(run))
    if run.recipe.cloud.route != "azure_openai":  # whose weights nobody gets to see
        run.step("weights", lambda: weights(run, str(trained["job"]), str(trained["model"])))
    run.step("status", lambda: run.verb("cloud-status"))
    run.step("down", lambda: run.verb("cloud-down", FILES="1"))
    left = run.step("status again", lambda: run.json("cloud-status"))
    run.check("nothing bills any more", not left["bills"], left["bills"])
    report = run.azure.ask("report")
    run.check("every request was known and valid", not report["problems"], report["problems"][:5])
    dialled = [json.loads(line) for line in (JOURNAL / "egress.jsonl").read_text().splitlines()]
    refused = {call["host"] for call in dialled if not call["allowed"]}
    allowed = {call["host"] for call in dialled} - refused
    run.check(
        "nothing left this machine",
        not refused,
        f"refused: {', '.join(sorted(refused))}"
        if refused
        else f"only {', '.join(sorted(allowed))}",
    )


def ask(run: Rehearsal) -> None:
    """The deployed model answers: the verb, the curl that it prints, and the makers' own client."""
    prompt, expected = run.recipe.rehearsal.prompt or SAMPLE, run.recipe.rehearsal.answer
    answers = {"make ask TARGET=cloud": run.verb("ask", TARGET="cloud", PROMPT=prompt)}
    python = str(setup.python())
    words = [str(run.path), prompt, *run.overrides]
    curl = run_program(run.environ, python, "-c", PRINT_CURL, *words).strip()
    say(f"$ {curl}")
    typed = {**run.verb_environ(), "PATH": f"{setup.python().parent}:{run.environ['PATH']}"}
    answers["that curl"] = run_program(typed, "bash", "-c", curl)
    url, body = url_and_body(curl)
    key = "" if url.endswith("/score") else run.verb("cloud-key")
    # the key on stdin, since a command line can be read by everyone on this machine
    answers["the makers' client"] = run_program(
        run.environ, python, "-m", "scripts.rehearse_clients", url, body, stdin=key
    )
    for who, text in answers.items():
        run.check(f"{who} answers", bool(text) and expected in readable(text), readable(text)[:600])


def url_and_body(curl: str) -> tuple[str, str]:
    """What a printed curl asks, and with what body."""
    words = shlex.split(re.sub(r"@<\(.*?\)\)?\"\)", "@key", curl))
    (url,) = [word for word in words if word.startswith("https://")]
    return url, words[words.index("-d") + 1]


def readable(text: str) -> str:
    """A JSON answer with its characters as they are, whatever way they were escaped."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return text.strip()


def weights(run: Rehearsal, job: str, model: str) -> None:
    """The same bytes after training, out of the model registry, and in the serving container."""
    name, version = model.removeprefix("azureml:").split(":")
    folder = FOLDER.parent / "rehearsal-model"
    download = (
        "import sys; from scripts.azure.client import connect; "
        "connect().ml.models.download(sys.argv[1], sys.argv[2], download_path=sys.argv[3])"
    )
    shutil.rmtree(folder, ignore_errors=True)
    run_program(run.environ, str(setup.python()), "-c", download, name, version, str(folder))
    registered = {hash_of(path) for path in folder.rglob(WEIGHTS)}
    log = run.verb("cloud-logs", JOB=job)
    published = {
        line.split("sha256:")[1].split()[0] for line in log.splitlines() if "sha256:" in line
    }
    served = serving(run.azure)
    run.check(
        "the weights are the same bytes in job, registry and server",
        len(registered) == 1 and registered == served and registered <= published,
        {"job": sorted(published), "registry": sorted(registered), "server": sorted(served)},
    )
    shutil.rmtree(folder)


def serving(azure: LocalAzure) -> set[str]:
    """Hashes of the weights as the running deployments see them."""
    if not isinstance(azure.runtime, Compose):
        return {hash_of(path) for path in (FOLDER / "deployments").rglob(WEIGHTS)}
    look = f"find /var/azureml-app -name {WEIGHTS} -exec sha256sum {{}} +"
    hashes = set()
    for container in containers():
        code, said = probe(["docker", "exec", container, "sh", "-c", look])
        if not code:  # the local Azure's own containers have no such folder
            hashes |= {line.split()[0] for line in said.splitlines()}
    return hashes


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_program(environ: Mapping[str, str], *command: str, stdin: str = "") -> str:
    """Run a program against the local Azure; its stdout. CommandError where it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env=dict(environ), input=stdin, capture_output=True, text=True
    )
    if done.returncode:
        raise CommandError(
            f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}", done.returncode
        )
    return done.stdout


def conclude(run: Rehearsal, error: VerbError | None) -> int:
    """Write the report, show the table, and say the verdict; the exit code."""
    holds = error is None and all(finding["holds"] for finding in run.findings.values())
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = OUTPUTS / "rehearsals" / stamp
    folder.mkdir(parents=True)
    for log in JOURNAL.glob("*.jsonl"):
        shutil.copyfile(log, folder / log.name)
    report = {
        "label": "rehearsed, not Azure",
        "recipe": run.recipe.name,
        "passed": holds,
        "error": str(error or ""),
        "seconds": run.seconds,
        "findings": run.findings,
        **run.tables,
    }
    (folder / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    say("")
    for title, seconds in run.seconds.items():
        say(f"{seconds:7.1f} s  {title}")
    say(f"{sum(run.seconds.values()):7.1f} s  in all")
    for name, finding in run.findings.items():
        say(f"{'ok' if finding['holds'] else 'NOT SO':>7}  {name}: {finding['found']}")
    if error:
        say(f"error: {error}")
    say(f"{'passed' if holds else 'FAILED'}: rehearsed, not Azure; report: {relative(folder)}")
    print(folder / "report.json")
    return 0 if holds else (error.exit_code if error else FAILED)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make rehearse", description="Rehearse the cloud path against a local Azure."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--runtime", default=flag_default("RUNTIME", "auto"), help="auto, docker or host"
    )
    parser.add_argument(
        "--faults",
        default=flag_default("FAULTS"),
        help="inject what goes wrong on a cloud: 1 for the named cases, all for every fault "
        "against every verb too",
    )
    parser.add_argument(
        "--kills", default=flag_default("KILLS"), help="kill so many verbs, and give them again"
    )
    parser.add_argument(
        "--seed", default=flag_default("SEED", "7"), help="of the kills: the same points again"
    )
    parser.add_argument(
        "--up", action="store_true", help="only start the local Azure, and leave it"
    )
    parser.add_argument(
        "--down", action="store_true", help="only stop it, and forget what is in it"
    )
    arguments = parser.parse_args()
    environ = environment()
    asked_for = rehearse_trials.read(arguments.faults, arguments.kills, arguments.seed)
    runtime = choose_runtime(asked_for.runtime(arguments.runtime))
    device = choose_device({**environ, "HOMEPORT_DEVICE": "cpu"}, runtime.value)
    quick = asked_for.any and runtime.value == "host"
    azure = local_azure(environ, runtime, device, quick=quick)
    if arguments.down:
        say("stopped the local Azure" if azure.stop() else "no local Azure is running")
        azure.forget()
        return
    asked = read_set(arguments.set)
    overrides = [*find_recipe(arguments.recipe, asked).rehearsal.set, *asked]
    recipe = find_recipe(arguments.recipe, overrides)
    if overrides:
        say(f"set:     {shlex.join(overrides)} (rehearsal.set of the recipe, and SET)")
    say(f"runtime: {runtime}")
    if asked_for.real or not asked_for.any:
        prepare(azure.runtime)
    azure.start()
    if arguments.up:
        say(f"use it:  {shell_line()}; make cloud-plan")
        say("end it:  make rehearsal-down")
        return
    # no secret of the user's: all that is asked there is the local Azure; and one runtime for all,
    # where a trial has chosen it
    known = {**without_secrets(environ), **azure.variables(), "RUNTIME": runtime.value}
    run = Rehearsal(azure, recipe, arguments.recipe, overrides, known)
    error = None
    try:
        if asked_for.any:
            found = rehearse_trials.run(asked_for, azure, known, str(arguments.recipe))
            run.seconds, run.findings, run.tables = found.seconds, found.findings, found.tables
        else:
            rehearse(run)
    except VerbError as failed:
        error = failed
    finally:
        azure.stop()
    code = conclude(run, error)
    azure.forget()
    sys.exit(code)


def prepare(runtime: Compose | Host) -> None:
    """Build or install all that the verbs need, while the way to the internet is still open."""
    if isinstance(runtime, Compose):
        runtime.build("train")
        runtime.build("serve")
    else:
        runtime.prepare()


if __name__ == "__main__":
    run_verb(main)

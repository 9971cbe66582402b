"""Train, deploy, ask and delete on a real Azure workspace with the cheapest settings, for proof.

It runs the verbs as a user does, on a recipe, job and endpoint of its own (named smoke), deletes
the endpoint whatever happens, and keeps sanitised recordings in outputs/recordings/. The local
Azure is compared with them (tests/emulator/test_parity.py).
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.errors import CommandError, UsageError
from scripts.local_serve import SAMPLE
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import OUTPUTS, ROOT, environment, flag_default, relative

if TYPE_CHECKING:
    from scripts.azure.routes import Planned

CHEAPEST = (
    "name=smoke",
    "training.epochs=1",
    "evaluation.rows=0",
    "cloud.max_hours=0.5",
    "cloud.expires_hours=1",
)
"""On top of the recipe, whose machines are taken as they are: the tiny recipe has the cheapest."""
STEPS = ("cloud_train", "cloud_deploy", "ask", "cloud_status")


class Smoke:
    """One run; what each verb printed, and how long it took."""

    def __init__(self, recipe: Path, overrides: str, folder: Path) -> None:
        self.common = ["--recipe", str(recipe), "--set", overrides]
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.results: dict[str, Any] = {}

    def run(self, verb: str, *flags: str) -> None:
        """Run one verb, recorded; CommandError where it fails."""
        say(f"\n── {verb.replace('_', '-')}")
        began = time.monotonic()
        recording = self.folder / f"{len(self.seconds):02}-{verb.replace('_', '-')}.json"
        recorder = [sys.executable, "-m", "scripts.azure.recording", str(recording)]
        command = [*recorder, f"scripts.{verb}", "--json", *flags]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
        )
        self.seconds[verb] = round(time.monotonic() - began, 1)
        if done.returncode:
            raise CommandError(f"{verb} failed; the reason stands above.", done.returncode)
        self.results[verb] = json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make cloud-smoke",
        description="Run the whole cloud path on a real workspace, cheaply, and record it.",
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument("--set", default=flag_default("SET"), help="more overrides of the recipe")
    parser.add_argument(
        "--yes", action="store_true", default=bool(flag_default("YES")), help="agree to the cost"
    )
    parser.add_argument(
        "--rehearsal", action="store_true", help="also against the local Azure, which proves less"
    )
    parser.add_argument(
        "--json", action="store_true", default=bool(flag_default("JSON")), help="print JSON"
    )
    arguments = parser.parse_args()
    settings = [*CHEAPEST, *overrides(arguments.set)]
    recipe = find_recipe(arguments.recipe, settings)
    if recipe.cloud.route == "azure_openai":
        raise UsageError(
            "make cloud-smoke proves the routes of Azure ML, and cloud.route is azure_openai: "
            "choose another recipe."
        )
    from scripts.azure import names, routes
    from scripts.azure.client import connect

    cloud = connect()
    if cloud.workspace.rehearsal and not arguments.rehearsal:
        raise UsageError(
            "this is the local Azure, and make cloud-smoke is the proof on the real one: use make "
            "rehearse, or add --rehearsal."
        )
    planned = routes.of(recipe).plan(recipe, arguments.recipe, cloud)
    say(routes.text(planned))
    routes.agree(whole(planned), "deploy", arguments.yes)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    smoke = Smoke(arguments.recipe, shlex.join(settings), OUTPUTS / "recordings" / stamp)
    error = go(smoke, names.endpoint_name(recipe, cloud.workspace.guid))
    found = {
        "recordings": relative(smoke.folder),
        "seconds": smoke.seconds,
        "results": smoke.results,
        "label": cloud.label(),
    }
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    if error:
        raise error
    say(f"\npassed: recordings in {relative(smoke.folder)}; read them before you share them")


def whole(planned: "Planned") -> "Planned":
    """The plan with the costs of both, which are agreed to at once."""
    train, deploy = planned.train, planned.deploy
    cost = replace(
        deploy,
        line=f"training {train.line}; then the endpoint {deploy.line}",
        warnings=(*train.warnings, *deploy.warnings),
        unknown=train.unknown or deploy.unknown,
    )
    return replace(planned, deploy=cost)


def go(smoke: Smoke, endpoint: str) -> CommandError | None:
    """All steps, and the deletion in any case; the first error."""
    error: CommandError | None = None
    flags = {"ask": ["--target", "cloud", "--prompt", SAMPLE]}
    try:
        for verb in STEPS:
            agree = ["--yes"] if verb in ("cloud_train", "cloud_deploy") else []
            common = [] if verb == "cloud_status" else smoke.common
            smoke.run(verb, *common, *agree, *flags.get(verb, []))
    except CommandError as failed:
        error = failed
    finally:
        error = tidy(smoke, endpoint, error)
    return error


def tidy(smoke: Smoke, endpoint: str, error: CommandError | None) -> CommandError | None:
    """Delete the endpoint, and end the job where training failed; the first error of all."""
    tidying = [("cloud_down", ["--endpoint", endpoint, "--yes"])]
    if "cloud_train" in smoke.seconds and "cloud_train" not in smoke.results:
        tidying.insert(0, ("cloud_cancel", smoke.common))
    for verb, flags in tidying:
        try:
            smoke.run(verb, *flags)
        except CommandError as failed:
            say(
                f"LEFT:   {verb.replace('_', '-')} failed, so something may bill: make cloud-status"
            )
            error = error or failed
    return error


if __name__ == "__main__":
    run_verb(main)

"""Look for known vulnerabilities in everything that is locked, and say what mends each.

Asks the service that pip-audit asks; its own variables choose another one, as in
PIP_AUDIT_VULNERABILITY_SERVICE=osv. Packages that were not looked at are never passed over: they
are named, and the exit code is 3.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from scripts import supply
from scripts.console import run_verb, say
from scripts.errors import CommandError, MachineError
from scripts.settings import ROOT, environment
from scripts.supply.changes import locked

FOUND = 4
HEAD = ("package", "version", "id", "mended in", "lock")
NOT_HERE = "Not looked at: packages of Debian, npm and vLLM, which are in no lock."


def main() -> None:
    argparse.ArgumentParser(prog="make audit", description=__doc__).parse_args()
    where = locked(ROOT)
    told = ask({pin for pins in where.values() for pin in pins.items()})
    skipped = passed_over(told)
    if found := findings(told):
        print("\n".join(table(found, where)), flush=True)
        if skipped:
            say(skipped)
        raise CommandError(f"{len(found)} known vulnerabilities stand above.", FOUND)
    if skipped:
        raise MachineError(skipped)
    say(f"audit: {len(told)} packages of {len(where)} locks, no known vulnerability. {NOT_HERE}")


def ask(pins: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """pip-audit's answer about every package; it takes one version of each at a time."""
    told: list[dict[str, Any]] = []
    left = sorted(pins)
    while left:
        once = dict(reversed(left))  # of several versions the first
        told += ask_once(once)
        left = [pin for pin in left if once[pin[0]] != pin[1]]
    return told


def ask_once(pins: Mapping[str, str]) -> list[dict[str, Any]]:
    """What one run says."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in pins.items()))
        file.flush()
        done = subprocess.run(
            [
                *(str(supply.python()), "-m", "pip_audit", "--format=json", "--desc=off"),
                *("--progress-spinner=off", "--no-deps", "--disable-pip"),
                *("--requirement", file.name),
            ],
            env=environment(),
            capture_output=True,
            text=True,
        )
    # it ends with 1 both where it finds something and where it fails
    try:
        told: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MachineError(
            "nothing was audited, since pip-audit failed (can its data be reached from here?): "
            f"{said[-1][:300]}"
        ) from None
    return told


def findings(told: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Package, version, vulnerability and where it is mended."""
    return sorted(
        {
            (
                one["name"],
                one["version"],
                vulnerability["id"],
                vulnerability["fix_versions"][0]
                if vulnerability["fix_versions"]
                else "nowhere yet",
            )
            for one in told
            for vulnerability in one.get("vulns", ())
        }
    )


def passed_over(told: list[dict[str, Any]]) -> str:
    """A sentence about the packages that could not be looked up; empty where all could be."""
    reasons = {one["name"]: one["skip_reason"] for one in told if "skip_reason" in one}
    if not reasons:
        return ""
    if len(reasons) == len({one["name"] for one in told}):
        return (
            "nothing was audited, since the index that was asked has no data about any of the "
            f"{len(reasons)} packages: it is a mirror without them; ask from elsewhere."
        )
    return f"not audited, since the data does not hold them: {', '.join(sorted(reasons))}."


def table(
    found: Iterable[tuple[str, str, str, str]], locks: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """The findings for people, with the locks that hold each."""
    rows = [HEAD]
    for name, version, vulnerability, mended in found:
        where = ", ".join(lock for lock, pins in locks.items() if pins.get(name) == version)
        rows.append((name, version, vulnerability, mended, where))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


if __name__ == "__main__":
    run_verb(main)

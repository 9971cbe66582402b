"""Look at this machine, its images and the account on Azure, and say what to mend and how.

Ends with 3 where something keeps Homeport from working here, with 6 where it is on Azure, else 0.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.doctor import Finding, examine, line, worst
from scripts.doctor.checks import ALL
from scripts.doctor.here import Here
from scripts.errors import CloudError, MachineError
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default

ON_AZURE = ("azure", "machines", "quota", "registry", "roles")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make doctor", description="Find what keeps this machine or account from working."
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        default=flag_default("RECIPE", DEFAULT_RECIPE),
        help="whose machines and model are looked at",
    )
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--fix",
        action="store_true",
        default=bool(flag_default("FIX")),
        help="mend what can be mended without risk",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=bool(flag_default("JSON")),
        help='print {"checks": […]}',
    )
    arguments = parser.parse_args()
    here = Here.of(find_recipe(arguments.recipe, overrides(arguments.set)))
    found = []
    for finding in examine(here, ALL):
        say(line(finding))
        found.append(mended(finding) if arguments.fix and finding.fix else finding)
    if arguments.json:
        print(json.dumps({"checks": [one.as_json() for one in found]}, ensure_ascii=False))
    sys.exit(exit_code(found))


def mended(finding: Finding) -> Finding:
    """What is left of a finding after its fix was done."""
    assert finding.fix  # noqa: S101 - for mypy: the caller has looked
    said = finding.fix()
    say(f"  fixed  {said}")
    return Finding(check=finding.check, severity="ok", sentence=said)


def exit_code(found: Sequence[Finding]) -> int:
    """0, or the code of the errors: this machine's before Azure's."""
    errors = [one for one in found if one.severity == "error"]
    if not errors:
        say(f"all in order, but for the {worst(found)}s" if worst(found) == "warning" else "ready")
        return 0
    here = [one for one in errors if one.check not in ON_AZURE]
    say(f"{len(errors)} to mend: {', '.join(dict.fromkeys(one.check for one in errors))}")
    return MachineError.exit_code if here else CloudError.exit_code


if __name__ == "__main__":
    run_verb(main)

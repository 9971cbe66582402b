"""make secrets: every secret is planted, everything is done, and nothing of them may come out.

    python -m trials.secrets            all of it
    python -m trials.secrets local      train, serve and ask on this machine; of images that are
                                        there only config and history
    python -m trials.secrets cloud      the cloud verbs, against a local Azure of this machine
    python -m trials.secrets docker     both images built, searched layer by layer, and run

In a copy of this checkout each secret that Homeport knows carries a mark: in .env, in the
environment, in the local Azure's Key Vault, as the key of endpoint and local server, in prompts.
Then the real verbs run, also into errors of servers that repeat all that they were sent, while
every process and container is watched. Last, all that they left and said is searched for the marks
in each encoding. What may be somewhere stands in ALLOWED with its reason. No mark is ever printed.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.table import Result
from trials import secrets_acts as acts
from trials.secrets_acts import ActError, Workplace
from trials.secrets_markers import Finder, new_tag
from trials.secrets_places import (
    Finding,
    Searched,
    Watch,
    history_of,
    images,
    in_folder,
    in_image,
)
from trials.table import finish, row


@dataclass(frozen=True, slots=True)
class Allowed:
    """Where a secret may be, and why."""

    secret: str
    """Patterns, of the whole name."""
    place: str
    where: str
    reason: str

    def holds(self, place: str, finding: Finding) -> bool:
        return all(
            re.fullmatch(pattern, text)
            for pattern, text in (
                (self.secret, finding.secret),
                (self.place, place),
                (self.where, finding.where),
            )
        )


PARTS = ("local", "cloud", "docker")
FILES, SAID, PROCESSES = "files of the checkout", "what verbs print", "processes"
VERB = r"(make|bash|sh|env|uname|python\S*)( -m scripts\.\S+)?"
"""And what it is made by, or asks of the machine."""
ALLOWED = (
    Allowed(r".* of \.env", FILES, r"\.env", "the user's own settings, which no image copies"),
    Allowed(
        r"HF_TOKEN of \.env",
        FILES,
        r"train/\.env|serve/\.secret|data/\.netrc|\.azureml/token\.json",
        "planted there to see that images leave it out",
    ),
    Allowed(acts.SERVE_KEY, FILES, r"\.cache/serve-key", "that is the key's file (mode 600)"),
    Allowed(
        "the local Azure's own login|a private key",
        FILES,
        r"outputs/local-azure/(env|pki/.*)",
        "what the local Azure hands to its clients (mode 600), and its own certificate",
    ),
    Allowed(
        r".* of the environment|the password in MLFLOW_TRACKING_URI|the local Azure's own login",
        PROCESSES,
        rf"{VERB}: variable (HF_TOKEN|MLFLOW_TRACKING_\w+|AZURE_CLIENT_SECRET)",
        "the user exported it to make and the verb",
    ),
    Allowed(acts.PROMPT, PROCESSES, rf"{VERB}: variable PROMPT", "the user asked by make ask"),
    Allowed(acts.PROMPT, SAID, r"\d+-ask", "the curl that make ask shows to who asked"),
    Allowed(acts.ENDPOINT, SAID, r"\d+-cloud-key", "make cloud-key prints it, and nothing else"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make secrets", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="by default all of them")
    parser.add_argument("--keep", action="store_true", help="leave the copy, and say where it is")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="homeport-secrets-"))
    try:
        results = trial(folder, arguments.parts or PARTS)
    except ActError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3)
    finally:
        acts.remove()
        if arguments.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(finish("secrets", results))


def trial(folder: Path, parts: Collection[str]) -> list[Result]:
    """Do the parts in `folder`; the table's rows."""
    work = Workplace(folder, new_tag())
    sent: list[Path] = []
    with Watch() as watch:
        if "local" in parts:
            acts.local(work)
        if "cloud" in parts:
            acts.cloud(work)
        if "docker" in parts:
            acts.local(work, "docker")
    if "docker" in parts:  # by hand, so that the builder's processes have all that was exported
        sent = acts.build(work)
    made = {name: value for name, value in work.values.items() if work.tag not in value}
    finder = Finder(work.tag, list(work.values), made)
    planted = Finder(work.tag, list(work.values), made, patterns=False)
    places: dict[str, Callable[[], Searched]] = {
        FILES: lambda: in_folder(work.folder, finder, skip=("node_modules",)),
        SAID: lambda: in_folder(work.said, finder),
        PROCESSES: lambda: watch.processes(planted),
        "docker inspect": lambda: watch.containers(planted),
        "what is sent to builders": lambda: _all(sent, planted),
    }
    for image in images():
        look = in_image if "docker" in parts else history_of
        places[f"image {image}"] = partial(look, image, planted)
    results: list[Result] = []
    allowed: Counter[str] = Counter()
    for place, search in places.items():
        results.append(_row(place, search(), allowed))
    results += [row(f"allowed: {why}", count, "times") for why, count in allowed.items()]
    results.append(row("secrets planted", len(work.values), "values"))
    return results


def _row(place: str, searched: Searched, allowed: Counter[str]) -> Result:
    """How many findings nobody allowed; each is said, where it is and never what."""
    wrong = []
    for finding in searched.findings:
        why = next((one.reason for one in ALLOWED if one.holds(place, finding)), "")
        if why:
            allowed[why] += 1
        else:
            wrong.append(finding)
    for finding, count in sorted(Counter(wrong).items(), key=str):
        where = f"{finding.where}, {finding.form}"
        print(f"FOUND: {finding.secret} in {place}: {where} ({count})", file=sys.stderr)
    size = f"{searched.files:,} looked at, {searched.size / 1e6:,.1f} MB"
    return row(f"{place} ({size})", len(wrong), "findings", "0", met=not wrong)


def _all(paths: Iterable[Path], finder: Finder) -> Searched:
    """Archives and folders together."""
    searched = Searched()
    for path in paths:
        if path.is_dir():
            inside = in_folder(path, finder)
            searched.findings += inside.findings
            searched.files += inside.files
            searched.size += inside.size
        else:
            with path.open("rb") as stream:
                searched.look(finder, stream, path.name)
    return searched


if __name__ == "__main__":
    main()

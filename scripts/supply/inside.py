"""Runs inside an image, with any Python and no package: what is installed there, as JSON on stdout.

docker run --rm --interactive … IMAGE python3 - <scripts/supply/inside.py
"""

import glob
import importlib.metadata
import json
import re
import subprocess
from typing import Any

ENVIRONMENTS = ("/opt/venv", "/opt/venv/engines/*")
FORMAT = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\n"
OSI = "License :: "
LONGEST_NAME = 64
"""Characters; what is longer is the licence's text and not its name."""


def debian() -> list[dict[str, Any]]:
    """The packages that dpkg has installed."""
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", FORMAT],
        capture_output=True,
        text=True,
        check=True,
    )
    found = []
    for line in listed.stdout.splitlines():
        status, name, version, architecture = line.split("\t")
        if status == "installed":
            found.append(
                {
                    "name": name,
                    "version": version,
                    "architecture": architecture,
                    "licences": copyright_of(name),
                }
            )
    return found


def copyright_of(package: str) -> list[str]:
    """The short names in its copyright file, where it is there and made for machines."""
    try:
        with open(f"/usr/share/doc/{package}/copyright", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return []
    if "copyright-format/1.0" not in text.partition("\n")[0]:
        return []
    return sorted(set(re.findall(r"(?m)^License: *(\S.*?) *$", text)))


def python(folder: str) -> list[dict[str, Any]]:
    """The distributions of a virtual environment."""
    packages = glob.glob(f"{folder}/lib/python*/site-packages")
    return [
        {
            "name": re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower(),
            "version": distribution.version,
            "environment": folder,
            "licences": licences(distribution.metadata),
        }
        for distribution in importlib.metadata.distributions(path=packages)
    ]


def licences(metadata: Any) -> list[str]:
    """What the package says of itself: an SPDX expression, else its classifiers, else its field."""
    if said := metadata.get("License-Expression"):
        return [str(said)]
    classifiers = metadata.get_all("Classifier") or []
    named = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith(OSI)]
    if named := sorted({name for name in named if name != "OSI Approved"}):
        return named
    said = (metadata.get("License") or "").strip()
    return [said] if said and "\n" not in said and len(said) <= LONGEST_NAME else []


def release() -> dict[str, str]:
    """/etc/os-release."""
    with open("/etc/os-release", encoding="utf-8") as file:
        pairs = [line.strip().partition("=") for line in file if "=" in line]
    return {key: value.strip('"') for key, _, value in pairs}


def main() -> None:
    found = sorted(path for pattern in ENVIRONMENTS for path in glob.glob(pattern))
    environments = [path for path in found if glob.glob(f"{path}/pyvenv.cfg")]
    told = {
        "release": release(),
        "debian": debian(),
        "python": [package for folder in environments for package in python(folder)],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()

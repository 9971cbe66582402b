"""Say what both images hold: one CycloneDX file each, with every package, version and licence."""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from scripts import supply
from scripts.console import run_verb
from scripts.docker import CONFINED, LOCKS, Compose
from scripts.errors import CommandError, MachineError
from scripts.runtime import choose_device, choose_runtime, probe
from scripts.settings import OUTPUTS, ROOT, environment, relative

IMAGES = ("train", "serve")
FOLDER = OUTPUTS / "sbom"
INSIDE = Path(__file__).parent / "supply/inside.py"
SHOWN = 6
"""Licences in the summary; the file has them all."""


def main() -> None:
    argparse.ArgumentParser(
        prog="make sbom", description="Write outputs/sbom/{train,serve}.cdx.json (CycloneDX 1.6)."
    ).parse_args()
    runtime = choose_runtime("docker")
    compose = Compose(environment(), choose_device(environment(), runtime.value))
    FOLDER.mkdir(exist_ok=True)
    for service in IMAGES:
        compose.build(service)
        told = inspect(f"homeport-{service}:{compose.device}")
        found = {"image": told, **look(told["name"]), "hashes": accepted(service)}
        target = FOLDER / f"{service}.cdx.json"
        licences = write(found, target)
        print("\n".join(table(found, licences, target)), flush=True)


def inspect(image: str) -> dict[str, Any]:
    """What the engine says of an image."""
    code, said = probe(["docker", "image", "inspect", image])
    if code:
        raise MachineError(f"{image} cannot be looked into: {said}")
    told = json.loads(said)[0]
    return {
        "name": image,
        "id": told["Id"],
        "user": told["Config"]["User"] or "root",
        "labels": told["Config"]["Labels"] or {},
    }


def look(image: str) -> dict[str, Any]:
    """What is installed in an image, found by a program in a container of it."""
    command = ["docker", "run", "--rm", "--interactive", *CONFINED, "--entrypoint=python3", image]
    with INSIDE.open("rb") as program:
        done = subprocess.run([*command, "-"], stdin=program, capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"{image} cannot be looked into: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def accepted(service: str) -> dict[str, list[str]]:
    """The hashes of the locks that the image was installed from."""
    files = [ROOT / "images" / name for name in LOCKS[service] if name.endswith(".txt")]
    return {pin: found for f in files for pin, found in supply.hashes(f.read_text()).items()}


def write(found: dict[str, Any], target: Path) -> list[tuple[str, int]]:
    """Have the file written and held against the schema; its licences, by how often."""
    done = subprocess.run(
        [str(supply.python()), "-m", "scripts.supply.bom", str(target)],
        cwd=ROOT,
        input=json.dumps(found),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise CommandError(f"{relative(target)} was not written.", done.returncode)
    licences: list[tuple[str, int]] = json.loads(done.stdout)
    return licences


def table(found: dict[str, Any], licences: list[tuple[str, int]], target: Path) -> list[str]:
    """The image for people."""
    image = found["image"]
    debian, python = found["debian"], found["python"]
    environments = sorted({package["environment"] for package in python})
    hashed = sum(
        f"{package['name']}=={package['version']}" in found["hashes"] for package in python
    )
    common = [f"{count} {name}" for name, count in licences[:SHOWN]]
    rest = sum(count for _, count in licences[SHOWN:])
    rows = [
        ("id", image["id"]),
        ("user", image["user"]),
        ("system", f"{found['release']['PRETTY_NAME']}, {len(debian)} packages"),
        ("python", f"{len(python)} packages in {', '.join(environments)}, {hashed} with hashes"),
        ("licences", ", ".join(common) + (f", {rest} others" if rest else "")),
        *(("label", f"{key}={value}") for key, value in sorted(image["labels"].items())),
        ("sbom", f"{relative(target)} (CycloneDX 1.6, valid)"),
    ]
    return [image["name"], *(f"  {name:<9} {value}" for name, value in rows)]


if __name__ == "__main__":
    run_verb(main)

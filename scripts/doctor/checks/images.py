"""The images that are built here: do they hold what the locks say, and does torch load in them."""

import json
import re
from collections.abc import Iterator

from scripts.docker import CONFINED
from scripts.doctor import Finding
from scripts.doctor.here import Here

LOOK = (
    "import importlib.metadata as m, json, sys; print(json.dumps("
    "{'python': sys.version.split()[0], **{n: m.version(n) for n in sys.argv[1:]}}))"
)
PACKAGES = {
    "train": ("torch", "transformers", "trl", "peft"),
    "serve": ("torch", "transformers", "azureml-inference-server-http"),
}


def check(here: Here) -> Iterator[Finding]:
    code, said = here.run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    if code:
        yield Finding(check="images", severity="skipped", sentence="no Docker engine answers")
        return
    built = [tag for tag in said.splitlines() if re.fullmatch(r"homeport-(train|serve):\w+", tag)]
    if not built:
        yield Finding(
            check="images", severity="note", sentence="none is built yet; local-serve builds them"
        )
    for tag in built:
        yield _of(here, tag)


def _of(here: Here, tag: str) -> Finding:
    role = "train" if "train" in tag else "serve"
    names = PACKAGES[role]
    flags = ("--rm", *CONFINED, "--entrypoint=python")
    code, said = here.run("docker", "run", *flags, tag, "-c", LOOK, *names)
    if code == 124:
        return Finding(
            check="images",
            severity="note",
            sentence=f"{tag} took too long to start to be looked into",
        )
    if code:
        return Finding(
            check="images",
            severity="error",
            sentence=f"{tag} does not run: {said.splitlines()[-1] if said else code}",
            remedy=f"docker image rm {tag}, then the same verb again builds it anew",
        )
    inside = json.loads(said.splitlines()[-1])
    if wrong := list(_differences(here, role, inside)):
        return Finding(
            check="images",
            severity="warning",
            sentence=f"{tag} was built from other locks: {', '.join(wrong)}",
            remedy=f"docker compose build {role}",
        )
    held = ", ".join(f"{name} {inside[name]}" for name in names)
    return Finding(check="images", severity="ok", sentence=f"{tag}: {held}")


def _differences(here: Here, role: str, inside: dict[str, str]) -> Iterator[str]:
    lock = here.text(here.root / "images" / f"{role}.txt").decode()
    for name, version in inside.items():
        locked = re.search(rf"^{re.escape(name)}==(\S+)", lock, re.MULTILINE)
        if locked and locked.group(1) != version:
            yield f"{name} {version} instead of {locked.group(1)}"

"""The commands of docs/security.md, typed as they stand there, beside a server that runs."""

import json
import re
import shlex
import subprocess

import pytest

from tests.e2e.conftest import Clone
from tests.tree import ROOT

pytestmark = pytest.mark.e2e
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.split("\n")
]
SHOWN = {
    "docker compose": r"read_only: true",
    "docker inspect": (
        r"^/homeport-\S+ user=1000:1000 read-only=true drop=\[ALL\] \[no-new-privileges:true\] "
        r"pids=32768$"
    ),
    "docker history": r"(?m)^USER homeport$",
    "docker image": r'(?m)^homeport \{.*"org\.opencontainers\.image\.title":"homeport-train"',
    "make sbom": r"(?s)homeport-train:cpu.* user +homeport.*/serve\.cdx\.json \(CycloneDX 1\.6",
}
"""What each must show, by its first two words."""


@pytest.mark.parametrize("command", [line for line in COMMANDS if line])
def test_a_command_shows_what_the_page_says(served: tuple[Clone, str], command: str) -> None:
    clone, _ = served
    if clone.runtime != "docker":
        pytest.skip("this is about containers")
    if command.startswith("docker inspect"):
        # of all servers on this machine, the one of this clone
        labelled = "label=homeport.role=serve"
        assert labelled in command
        command = command.replace(labelled, f"publish={clone.port}")
    what = " ".join(shlex.split(command)[:2])
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=clone.folder,
        env=clone.environ(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert re.search(SHOWN[what], done.stdout.strip() + done.stderr)


def test_each_sbom_holds_what_is_installed(served: tuple[Clone, str]) -> None:
    clone, _ = served
    if clone.runtime != "docker":
        pytest.skip("this is about images")
    for service, package in (("train", "trl"), ("serve", "azureml-inference-server-http")):
        made = json.loads((clone.folder / f"outputs/sbom/{service}.cdx.json").read_text())
        found = {component["name"]: component for component in made["components"]}
        assert {"python3-minimal", "torch", package} <= found.keys()
        assert found[package]["externalReferences"][0]["hashes"]

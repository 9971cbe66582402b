"""What `docker compose` makes of the files: no container keeps a right that it does not need.

Needs the docker command and no engine. That the running containers have it so is e2e's to show.
"""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from scripts.docker import CONFINED
from tests.tree import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("docker"), reason="docker is not installed")
FILES = sorted((path.name for path in ROOT.glob("docker-compose*.yml")), key=len)
"""The one that the others add to first."""
ALL = ["azure", "registry", "serve", "track", "train"]
KERNELS = ("train", "serve")
"""Load what they compile on first use, which no other service may."""


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Every service as the engine is told to run it, with all files and profiles."""
    files = [part for name in FILES for part in ("--file", name)]
    done = subprocess.run(
        [
            "docker",
            "compose",
            "--env-file=/dev/null",
            *files,
            "--profile=*",
            "config",
            "--format=json",
        ],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_every_service_is_looked_at(services: dict[str, Any]) -> None:
    assert sorted(services) == ALL


@pytest.mark.parametrize("name", ALL)
def test_a_container_is_nobody_special_and_cannot_become_more(
    services: dict[str, Any], name: str
) -> None:
    service = services[name]
    assert service["user"] == "1000:1000"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert 0 < service["pids_limit"] <= 32768
    given = {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "network_mode"}
    assert not given & service.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_container_writes_into_its_mounts_and_tmp_alone(
    services: dict[str, Any], name: str
) -> None:
    service = services[name]
    assert service["read_only"] is True
    for mount in service.get("tmpfs", []):
        folder, _, options = mount.partition(":")
        assert folder == "/tmp"  # noqa: S108 - the container's
        assert ("exec" in options.split(",")) == (name in KERNELS)
    writable = {m["target"] for m in service["volumes"] if not m.get("read_only")}
    assert (
        writable
        == {
            "train": {"/opt/homeport/outputs", "/opt/homeport/.cache"},
            "serve": {"/opt/homeport/.cache/engine"},
            "track": {"/opt/homeport/outputs"},
            "azure": {
                *("/var/run/docker.sock", "/opt/homeport/.cache/rehearsal"),
                "/opt/homeport/.cache/rehearsal-bases",
            },
            "registry": {"/var/lib/images"},
        }[name]
    )


def test_only_the_local_azure_may_speak_with_the_engine(services: dict[str, Any]) -> None:
    with_socket = [
        name
        for name, service in services.items()
        if any("docker.sock" in mount["source"] for mount in service["volumes"])
    ]
    assert with_socket == ["azure"]


def test_a_container_that_only_looks_into_an_image_has_no_network_and_no_rights() -> None:
    assert {
        *("--network=none", "--read-only", "--cap-drop=ALL"),
        "--security-opt=no-new-privileges",
    } <= set(CONFINED)

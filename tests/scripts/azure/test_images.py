import json
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scripts import docker
from scripts.azure import images
from scripts.azure.images import LocalImage
from scripts.azure.registry import Registry
from scripts.errors import CommandError, MachineError, UsageError
from scripts.settings import CACHE, ROOT
from tests import local_azure as local
from tests.registry import registry
from train.recipe import CloudConfig

ARM_ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/homes"
DIGEST = f"sha256:{'d' * 64}"
REF = f"homes.azurecr.io/homeport@{DIGEST}"
IMAGE = LocalImage(
    role="serve", tag="homeport-serve:cpu", id=f"sha256:{'a' * 64}", revision="r", inputs="i"
)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(images, "MEMORY", tmp_path / "cloud")
    return tmp_path / "cloud"


def cloud(rehearsal: str = "") -> Any:
    answer = {"properties": {"loginServer": "homes.azurecr.io"}}
    workspace = SimpleNamespace(registry_id=ARM_ID, rehearsal=rehearsal)
    rest = SimpleNamespace(get=lambda path, version: answer)
    return cast("Any", SimpleNamespace(workspace=workspace, rest=rest, credential=None))


def recipe(**values: Any) -> Any:
    return cast("Any", SimpleNamespace(cloud=CloudConfig(**values)))


def tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of that name, before all others."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def engine(folder: Path, monkeypatch: pytest.MonkeyPatch, **labels: str) -> None:
    """A `docker` that has one image, homeport-serve:cpu, with these labels."""
    found = {
        "Id": IMAGE.id,
        "Architecture": labels.pop("architecture", "amd64"),
        "Size": 5_000_000,
        "Config": {"Labels": {"homeport.device": "cpu", **labels}},
    }
    (folder / "image.json").write_text(json.dumps(found))
    inputs = labels.get("homeport.inputs", "")
    script = f"""
case "$*" in
"image inspect homeport-serve:cpu --format {{{{json .}}}}") cat {folder}/image.json ;;
"image inspect {IMAGE.id} --format "*) echo cpu {inputs} ;;
"ps "*publish=5001) echo container ;;
"ps "*) ;;
"inspect container --format {{{{.Image}}}}") echo {IMAGE.id} ;;
*) exit 1 ;;
esac"""
    tool(folder / "bin", "docker", script, monkeypatch)


@pytest.mark.parametrize(
    ("rehearsal", "role", "device", "reason"),
    [
        ("", "train", "cuda", "Standard_NC40ads_H100_v5 has 1 x"),
        ("", "serve", "cpu", "Standard_E4s_v3 has no GPU"),
        ("docker", "train", "cpu", "this machine's processor"),
        ("host", "serve", "cpu", "this machine's processor"),
    ],
)
def test_the_device_follows_the_machine(
    rehearsal: str, role: images.Role, device: str, reason: str
) -> None:
    asked = recipe(serve_instance_type="Standard_E4s_v3")
    choice = images.device_for(asked, cloud(rehearsal), role)
    assert choice.value == device
    assert reason in choice.reason


def test_an_image_of_these_sources_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = docker.inputs("serve", {"HOMEPORT_DEVICE": "cpu"})
    labels = {"homeport.inputs": now, "org.opencontainers.image.revision": "abc"}
    engine(tmp_path, monkeypatch, **labels)
    found = images.find("serve", "cpu", {})
    assert found == replace(IMAGE, revision="abc", inputs=now, size=5_000_000)
    assert found.remote_tag == "serve-aaaaaaaaaaaa"


def test_an_image_of_other_sources_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path, monkeypatch, **{"homeport.inputs": "0123456789abcdef"})
    assert images.find("serve", "cpu", {}) is None
    assert images.find("train", "cpu", {}) is None


def test_an_image_for_another_processor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(tmp_path, monkeypatch, architecture="arm64")
    with pytest.raises(UsageError, match=r"amd64.*PUSH=build"):
        images.find("serve", "cpu", {})


def test_an_image_on_a_stand_in_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path, monkeypatch, **{"homeport.standin": "true"})
    image = images._inspect("serve", "cpu")
    assert image
    monkeypatch.setattr(Registry, "digest", lambda self, tag: "")
    with pytest.raises(UsageError, match="HOMEPORT_BASE_IMAGE"):
        images.push(cloud(), image)


def test_a_host_rehearsal_needs_no_docker_and_its_digest_follows_the_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    image = images.local("train", "cpu", {}, "host")
    ref = images.push(cloud("host"), image)
    assert ref == f"homes.azurecr.io/homeport/train@{image.id}"
    other = images.local("serve", "cpu", {}, "host")
    assert other.id != image.id
    monkeypatch.setattr(docker, "inputs", lambda service, environ: "edited")
    assert images.local("train", "cpu", {}, "host").id != image.id


def test_what_is_there_is_not_pushed_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Registry, "digest", lambda self, tag: DIGEST)
    assert images.push(cloud(), IMAGE) == REF
    assert "there already" in capsys.readouterr().err


def test_an_image_that_answered_has_passed_and_only_that_one(memory: Path) -> None:
    images._remember_pushed(REF, IMAGE)
    assert "never answered here" in images.passed(REF).sentence
    images.remember_passed(IMAGE.id, model="tiny-ja")
    passed = images.passed(REF)
    assert passed.same
    assert "with tiny-ja" in passed.sentence
    other = images.passed(REF.replace("d" * 64, "e" * 64))
    assert not other.same
    assert "not pushed from this machine" in other.sentence


def test_the_cpu_image_of_the_same_sources_is_named_but_is_not_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = docker.inputs("serve", {"HOMEPORT_DEVICE": "cpu"})
    engine(tmp_path, monkeypatch, **{"homeport.inputs": now})
    monkeypatch.setattr(images, "environment", dict)
    images.remember_answer(5001, model="tiny-ja")
    images._remember_pushed(REF, replace(IMAGE, id=f"sha256:{'c' * 64}", device="cuda"))
    passed = images.passed(REF)
    assert not passed.same
    assert "the cpu image of the same sources (aaaaaaaaaaaa) did" in passed.sentence


def test_an_image_of_other_sources_does_not_stand_for_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(tmp_path, monkeypatch, **{"homeport.inputs": "other"})
    images.remember_answer(5001, model="tiny-ja")
    images._remember_pushed(REF, replace(IMAGE, id=f"sha256:{'c' * 64}", device="cuda"))
    assert "never answered here" in images.passed(REF).sentence


def test_a_server_without_container_stands_for_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(tmp_path, monkeypatch)
    images.remember_answer(5002)
    ref = images.push(cloud("host"), images.local("serve", "cpu", {}, "host"))
    assert images.passed(ref).same


def test_a_damaged_memory_is_none(memory: Path) -> None:
    memory.mkdir()
    (memory / "pushed.json").write_text("{")
    assert not images.passed(REF)
    images._remember_pushed(REF, IMAGE)
    assert "never answered" in images.passed(REF).sentence


def test_the_registry_builds_from_what_the_dockerfile_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = iter(["", DIGEST])
    monkeypatch.setattr(Registry, "digest", lambda self, tag: next(digests))
    script = f'echo "$@" > {tmp_path}/said; find . -type f > {tmp_path}/context'
    tool(tmp_path / "bin", "az", script, monkeypatch)
    image = images.local("train", "cuda", {"PUSH": "build"})
    assert images.push(cloud(), image) == REF
    said = (tmp_path / "said").read_text()
    assert "acr run --registry homes --file image-build.yml" in said
    assert f"--set tag={image.remote_tag} " in said
    assert "--set device=cuda " in said
    asked = re.findall(r"\{\{\.Values\.(\w+)\}\}", (ROOT / "azure/image-build.yml").read_text())
    assert set(asked) == set(re.findall(r"--set (\w+)=", said))
    context = (tmp_path / "context").read_text().split()
    assert {"./image-build.yml", "./images/Dockerfile", "./train/run.py"} <= set(context)
    assert not [name for name in context if ".cache" in name or "outputs" in name]
    assert not list(CACHE.glob("context-*"))


def test_a_build_that_fails_there_passes_its_code_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "digest", lambda self, tag: "")
    tool(tmp_path / "bin", "az", "exit 7", monkeypatch)
    with pytest.raises(CommandError) as failed:
        images.push(cloud(), images.local("train", "cuda", {"PUSH": "build"}))
    assert failed.value.exit_code == 7


def test_without_the_cli_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "digest", lambda self, tag: "")
    image = images.local("serve", "cuda", {"PUSH": "build"})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="az"):
        images.push(cloud(), image)


def test_without_docker_the_other_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match=r"docker is not installed.*PUSH=build"):
        images.local("serve", "cpu", {})


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def small_image(folder: Path) -> Iterator[str]:
    """An image of two layers that can echo; a few megabytes."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True).returncode
    ):
        pytest.skip("no Docker engine")
    echo = shutil.which("echo") or "/bin/echo"
    root = folder / "root"
    linked = [word for word in run("ldd", echo).split() if word.startswith("/")]
    for file in (echo, *linked):
        target = root / os.path.realpath(os.path.dirname(file)).lstrip("/") / os.path.basename(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for name in ("lib", "lib64", "bin"):
        if os.path.islink(f"/{name}") and not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    tag = f"homeport-push-test:{os.getpid()}"
    run("tar", "-C", str(root), "-cf", str(folder / "root.tar"), ".")
    base = run("docker", "import", str(folder / "root.tar"))
    container = run("docker", "create", base, echo, "it runs")
    (folder / "note").write_text("second layer\n")
    try:
        run("docker", "cp", str(folder / "note"), f"{container}:/note")
        run("docker", "commit", container, tag)
    finally:
        run("docker", "rm", container)
    try:
        yield tag
    finally:
        subprocess.run(["docker", "image", "rm", "--force", tag, base], capture_output=True)


@pytest.mark.slow
def test_what_the_engine_pulls_by_digest_is_the_image_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.azure.client import connect

    with (
        registry(tmp_path) as address,
        small_image(tmp_path) as tag,
        local.bare_azure(tmp_path / "azure", registry=f"http://{address}") as server,
        local.environment(server),
    ):
        found = connect()
        there = replace(found, workspace=replace(found.workspace, rehearsal="docker"))
        inspected = json.loads(run("docker", "image", "inspect", tag))[0]
        image = replace(IMAGE, tag=tag, id=inspected["Id"], size=inspected["Size"])
        assert images.reference(there, image) == ""
        ref = images.push(there, image)
        begin = time.monotonic()
        sent = dict(server.report()["requests"])
        assert images.push(there, image) == ref
        assert time.monotonic() - begin < 1
        again = server.report()["requests"]
        assert {key for key in again if again[key] != sent.get(key)} <= {
            key for key in again if key.startswith(("HEAD", "GET", "POST *.azurecr.io /oauth2"))
        }
        assert server.report()["problems"] == []
        digest = ref.rpartition("@")[2]
        subprocess.run(["docker", "image", "rm", "--force", tag], check=True, capture_output=True)
        pulled = f"{address}/homeport@{digest}"
        try:
            assert run("docker", "pull", pulled).count("Pull complete") == 2
            after = json.loads(run("docker", "image", "inspect", pulled))[0]
            assert after["RootFS"]["Layers"] == inspected["RootFS"]["Layers"]
            assert len(after["RootFS"]["Layers"]) == 2
            assert after["Config"]["Cmd"] == inspected["Config"]["Cmd"]
            assert run("docker", "run", "--rm", pulled) == "it runs"
        finally:
            subprocess.run(["docker", "image", "rm", "--force", pulled], capture_output=True)

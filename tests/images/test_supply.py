"""Nothing that is installed may change under us: bases by digest, packages by hash.

By version alone are torch and, in the CUDA image, vLLM: each index and device has its own wheels,
so that no one lock holds their hashes. (Actions: tests/test_workflow.py.)
"""

import json
import re
from base64 import b64decode
from pathlib import Path

import pytest

from scripts import docker, supply
from scripts.errors import UsageError
from scripts.runtime import Choice
from tests.tree import ROOT, files

LOCKS = supply.locks()
DOCKERFILES = [path for path in files() if "Dockerfile" in path.name]
SHELL = [path for path in files() if path.suffix in ("", ".sh", ".yml") or path in DOCKERFILES]
WITHOUT_HASHES = (
    'pip install ${index:+--index-url "$index"} "torch==$TORCH_VERSION"',
    "/opt/venv/engines/vllm/bin/pip install $what",
)


def instructions(path: Path) -> str:
    """Without comments, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", path.read_text(encoding="utf-8"))
    return re.sub(r"\s*\\\n\s*", " ", text)


def test_every_short_file_has_its_lock() -> None:
    short = [path for path in files() if path.suffix == ".in"]
    assert len(short) > 8
    assert sorted(path.with_suffix(".txt") for path in short) == LOCKS


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_package_of_a_lock_has_one_version_and_hashes(lock: Path) -> None:
    lines = [line for line in instructions(lock).splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9._-]+==\S+( --hash=sha256:[0-9a-f]{64})+ *", line), line
    assert supply.hashes(lock.read_text()).keys() == {
        f"{name}=={version}" for name, version in supply.pins(lock.read_text()).items()
    }


def test_pip_installs_by_hash_but_for_what_has_none_in_common() -> None:
    found = [
        command.strip()
        for path in SHELL
        for command in re.findall(r"\S*pip install [^;|&\n]+", instructions(path))
    ]
    assert len(found) > 5
    loose = [command for command in found if "--require-hashes" not in command]
    assert sorted(loose) == sorted(WITHOUT_HASHES)


def test_every_base_is_by_digest_or_a_stage_of_the_same_file() -> None:
    assert DOCKERFILES
    for path in DOCKERFILES:
        stages: set[str] = set()
        for base, stage in re.findall(r"(?mi)^FROM (\S+)(?: AS (\S+))?", path.read_text()):
            # the one that the user may replace is by digest where it is not replaced
            by_digest = re.search(r"@sha256:[0-9a-f]{64}$", base)
            default = base == "${BASE_IMAGE:-$DEBIAN}"
            assert base in stages or by_digest or default, f"{path}: {base}"
            stages.add(stage)
        for default in re.findall(r"(?m)^ARG DEBIAN=(.*)$", path.read_text()):
            assert re.fullmatch(r"debian:[\w-]+@sha256:[0-9a-f]{64}", default)


def test_no_service_pulls_an_image_by_a_tag_of_somebody_else() -> None:
    for path in ROOT.glob("docker-compose*.yml"):
        for image in re.findall(r"(?m)^\s+image: (\S+)", path.read_text()):
            assert image.startswith("homeport-"), f"{path.name}: {image}"


def test_every_package_of_azurite_is_pinned_with_its_integrity() -> None:
    folder = ROOT / "images/azurite"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d[\w.+-]*", version) for version in wanted.values())
    locked = json.loads((folder / "package-lock.json").read_text())
    packages = {name: package for name, package in locked["packages"].items() if name}
    assert len(packages) > 100
    for name, package in packages.items():
        kind, _, digest = package["integrity"].partition("-")
        assert (kind, len(b64decode(digest))) in (("sha512", 64), ("sha256", 32)), name


def test_a_login_never_gets_into_the_history_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "probe", lambda command: (1, "no such image"))
    index = {"HOMEPORT_TORCH_INDEX": "https://me:secret@example.org/simple"}
    with pytest.raises(UsageError, match="HOMEPORT_TORCH_INDEX holds a login") as caught:
        docker.Compose(index, Choice("cpu", "asked for")).build("train")
    assert "secret" not in str(caught.value)

"""What each check says of a machine, told by hand; and what the verb makes of it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from scripts.doctor import Check, Finding, examine, line
from scripts.doctor.__main__ import exit_code, mended
from scripts.doctor.checks import (
    ALL,
    buildx,
    compose,
    disk,
    engine,
    gpu,
    images,
    line_endings,
    memory,
    ownership,
    ports,
    python,
    remote_gpu,
    retirement,
    runtime,
)
from scripts.doctor.here import Here
from scripts.errors import MachineError
from tests.tree import ROOT
from train.recipe import Recipe, load

TINY = load(ROOT / "recipes/tiny-ja.yaml", environ={})
LARGE = load(ROOT / "recipes/gpt-oss-20b-ja.yaml", environ={})
GIGABYTE = 1_000_000_000
SERVER = "docker version --format {{.Server.Version}}"
LISTING = "docker image ls --format {{.Repository}}:{{.Tag}}"
SMI = f"nvidia-smi {gpu.QUERY} --format=csv,noheader"


class Told(Here):
    """A machine that answers what the test has written down."""

    def __init__(
        self,
        answers: dict[str, tuple[int, str]] | None = None,
        *,
        recipe: Recipe = TINY,
        root: Path = ROOT,
        disk: int = 100 * GIGABYTE,
        memory: tuple[int, int] | None = (16 * GIGABYTE, 12 * GIGABYTE),
        taken: Sequence[int] = (),
        owners: Sequence[int] = (1000,),
        user: int = 1000,
        version: tuple[int, int, int] = (3, 11, 2),
    ) -> None:
        super().__init__({}, recipe, root)
        self.answers, self._disk, self._memory = answers or {}, disk, memory
        self._taken, self._owners, self._user, self._version = taken, owners, user, version

    def run(self, *command: str) -> tuple[int, str]:
        known = self.answers.items()
        return next((a for c, a in known if " ".join(command).startswith(c)), (127, "not there"))

    @property
    def system(self) -> str:
        return "Linux"

    @property
    def in_wsl(self) -> bool:
        return False

    @property
    def python(self) -> tuple[int, int, int]:
        return self._version

    @property
    def user(self) -> int:
        return self._user

    def free_disk(self, path: Path) -> int:
        return self._disk

    def memory(self) -> tuple[int, int] | None:
        return self._memory

    def port_is_free(self, port: int) -> bool:
        return port not in self._taken

    def files(self) -> Iterator[tuple[Path, int]]:
        yield from ((Path(f"outputs/{number}"), owner) for number, owner in enumerate(self._owners))


def found(check: Check, here: Here) -> list[Finding]:
    return list(check(here))


def the(check: Check, here: Here) -> Finding:
    (one,) = found(check, here)
    return one


@pytest.mark.parametrize(
    ("check", "here", "severity", "says"),
    [
        (python.check, Told(version=(3, 9, 1)), "error", "3.11"),
        (engine.check, Told(), "warning", "not installed"),
        (engine.check, Told({SERVER: (0, "19.03.1")}), "error", "too old"),
        (engine.check, Told({SERVER: (1, "permission denied")}), "error", "may not use it"),
        (engine.check, Told({SERVER: (1, "no daemon")}), "error", "no daemon"),
        (compose.check, Told({"docker compose": (1, "")}), "error", "no Compose"),
        (compose.check, Told({"docker compose": (0, "v2.2.3")}), "error", "too old"),
        (buildx.check, Told({"docker buildx": (1, "")}), "error", "no buildx"),
        (disk.check, Told(disk=2 * GIGABYTE), "error", "8 GB"),
        (disk.check, Told(disk=5 * GIGABYTE), "warning", "8 GB"),
        (memory.check, Told(memory=(4 * GIGABYTE, GIGABYTE)), "error", "at the least"),
        (gpu.check, Told({SMI: (9, "")}), "warning", "does not see"),
        (gpu.check, Told({SMI: (0, "Tesla T4, 470.1, 7.5")}), "error", "too old"),
        (gpu.check, Told({SMI: (0, "B200, 580.1, 10.0")}), "error", "newer"),
        (ownership.check, Told(owners=(1000, 0)), "error", "1 files are not yours"),
        (images.check, Told({LISTING: (0, "homeport-serve:cpu")}), "error", "does not run"),
        (images.check, Told({LISTING: (0, "other:1")}), "note", "none is built"),
    ],
)
def test_what_is_wrong_is_a_sentence_with_its_remedy(
    check: Check, here: Here, severity: str, says: str
) -> None:
    one = the(check, here)
    assert one.severity == severity
    assert says in one.sentence
    assert one.remedy or severity == "note"


@pytest.mark.parametrize("check", [c for c in ALL if "azure" not in c.__module__])
def test_a_machine_in_order_has_no_error(check: Check) -> None:
    here = Told(
        {
            SERVER: (0, "28.0.1"),
            "docker compose": (0, "2.40.3"),
            "docker buildx": (0, "buildx v0.13"),
            SMI: (0, "NVIDIA H100 NVL, 535.161, 9.0"),
            "nvidia-smi -L": (0, "GPU 0: H100 (UUID: x)"),
            "docker info": (0, '{"nvidia": {}}'),
            LISTING: (0, ""),
        }
    )
    here.__dict__["account"] = (None, "no workspace is set")
    assert {one.severity for one in check(here)} <= {"ok", "note", "skipped"}


def test_a_port_in_use_names_the_next_one_and_our_own_server_is_none() -> None:
    taken = found(ports.check, Told(taken=(5001,)))
    assert (taken[0].severity, taken[0].remedy) == ("warning", "make local-serve PORT=5002")
    ours = found(ports.check, Told({"docker ps": (0, "abc")}, taken=(5001,)))
    assert ours[0].severity == "ok"


def test_the_runtime_is_the_one_that_the_verbs_take() -> None:
    assert "host" in the(runtime.check, Told()).sentence


def test_an_image_of_other_locks_is_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/train.txt").write_text("trl==2.0 \\\n    --hash=sha256:0\n")
    inside = json.dumps({"python": "3.11", "torch": "2", "transformers": "5", "trl": "1.0"})
    answers = {LISTING: (0, "homeport-train:cpu"), "docker run": (0, inside)}
    one = the(images.check, Told(answers, root=tmp_path))
    assert one.severity == "warning"
    assert "trl 1.0 instead of 2.0" in one.sentence


def test_line_endings_are_mended_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes(b"all:\r\n\ttrue\r\n")
    one = the(line_endings.check, Told(root=tmp_path))
    assert one.severity == "error"
    assert (tmp_path / "Makefile").read_bytes().count(b"\r") == 2
    assert mended(one).severity == "ok"
    assert (tmp_path / "Makefile").read_bytes() == b"all:\n\ttrue\n"


def test_the_image_is_held_against_the_gpu_of_the_recipes_machine() -> None:
    one = the(remote_gpu.check, Told(recipe=LARGE))
    assert (one.severity, "H100-NVL" in one.sentence) == ("ok", True)


def test_a_retired_model_is_told_and_the_way_out() -> None:
    phi = load(ROOT / "recipes/phi-3-mini-ultrachat.yaml", environ={})
    one = the(retirement.check, Told(recipe=phi))
    assert (one.severity, "2025-08-30" in one.sentence) == ("warning", True)
    assert "make advise" in one.remedy


def test_a_check_that_cannot_look_is_a_finding_and_the_others_go_on() -> None:
    def broken(here: Here) -> list[Finding]:
        raise MachineError("no /proc")

    told = list(examine(Told(), [broken, python.check]))
    assert [one.severity for one in told] == ["warning", "ok"]
    assert "no /proc" in line(told[0])


def test_errors_here_end_with_3_and_on_azure_with_6() -> None:
    here = Finding(check="disk", severity="error", sentence="full", remedy="free some")
    there = Finding(check="quota", severity="error", sentence="none left", remedy="ask")
    assert exit_code([]) == 0
    assert exit_code([here, there]) == 3
    assert exit_code([there]) == 6


def test_json_is_one_object_with_all_checks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.doctor", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    checks = json.loads(done.stdout)["checks"]
    assert {"python", "disk", "azure"} <= {one["check"] for one in checks}
    assert all(one["remedy"] for one in checks if one["severity"] in ("warning", "error"))

"""The smoke test on a real workspace leaves nothing behind, and does not pass for one here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import cloud_smoke
from scripts.errors import CommandError
from tests.local_azure import bare_azure
from tests.tree import ROOT


class Scripted(cloud_smoke.Smoke):
    """Runs nothing; `failing` verbs fail."""

    def __init__(self, *failing: str) -> None:
        super().__init__(Path("recipe.yaml"), "name=smoke", Path("unused"))
        self.failing = failing
        self.ran: list[str] = []

    def run(self, verb: str, *flags: str) -> None:
        self.ran.append(" ".join((verb, *flags)))
        self.seconds[verb] = 0.0
        if verb in self.failing:
            raise CommandError(f"{verb} failed", 6)
        self.results[verb] = {}


ALL = ["cloud_train", "cloud_deploy", "ask", "cloud_status", "cloud_down"]


@pytest.mark.parametrize(
    ("failing", "verbs"),
    [
        ((), ALL),
        (("cloud_train",), ["cloud_train", "cloud_cancel", "cloud_down"]),
        (("cloud_deploy",), ["cloud_train", "cloud_deploy", "cloud_down"]),
        (("ask",), ["cloud_train", "cloud_deploy", "ask", "cloud_down"]),
        (("cloud_train", "cloud_cancel"), ["cloud_train", "cloud_cancel", "cloud_down"]),
    ],
)
def test_what_it_made_is_deleted_whatever_fails(failing: tuple[str, ...], verbs: list[str]) -> None:
    smoke = Scripted(*failing)
    error = cloud_smoke.go(smoke, "smoke-1234")
    assert [line.split()[0] for line in smoke.ran] == verbs
    assert smoke.ran[-1] == "cloud_down --endpoint smoke-1234 --yes"
    assert str(error or "") == (f"{failing[0]} failed" if failing else "")


def test_a_deletion_that_fails_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cloud_smoke.go(Scripted("cloud_down"), "smoke-1234") is not None
    assert "make cloud-status" in capsys.readouterr().err


@pytest.mark.slow
def test_the_local_azure_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("azure.ai.ml", reason="installed by the first cloud verb")
    with bare_azure(tmp_path) as server:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "scripts.cloud_smoke",
                "--yes",
                "--recipe",
                "recipes/tiny-ja.yaml",
            ],
            cwd=ROOT,
            env={**os.environ, **server.env},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    assert "make rehearse" in done.stderr
    assert server.azure.journal.report()["problems"] == []

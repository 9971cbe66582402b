import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import local_azure as local
from tests.tree import ROOT


def verb(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.cloud_push", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


def test_another_way_to_push_is_refused_before_anybody_is_asked() -> None:
    done = verb("--push", "tomorrow")
    assert done.returncode == 2
    assert done.stderr == "error: PUSH is 'tomorrow': use here or build.\n"


@pytest.mark.slow
def test_in_a_host_rehearsal_both_references_are_there_at_once(tmp_path: Path) -> None:
    with local.bare_azure(tmp_path) as server, local.environment(server):
        done = verb("--json", PATH="/nowhere")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["label"] == "rehearsed, not Azure"
        for role in ("train", "serve"):
            begin = f"homeportrehearsal.azurecr.io/homeport/{role}@sha256:"
            assert found["images"][role].startswith(begin)
        assert verb("--role", "serve").stdout == f"{found['images']['serve']}\n"
        assert server.report()["problems"] == []

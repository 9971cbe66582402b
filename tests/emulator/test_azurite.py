import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from emulator import azurite
from tests.npm import put_npm
from tests.tree import ROOT
from tests.waiting import until

SAID = """npm warn EBADENGINE Unsupported engine {
npm error code ENOTFOUND
npm error syscall getaddrinfo
npm error errno ENOTFOUND
npm error network request to http://registry failed, reason: getaddrinfo ENOTFOUND registry
npm error network This is a problem related to network connectivity.
npm error A complete log of this run can be found in: /root/.npm/_logs/debug-0.log
"""


def test_the_reason_of_npm_is_told_and_not_its_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said").write_text(SAID)
    put_npm(tmp_path / "bin", f"cat '{tmp_path}/said' >&2; exit 1", monkeypatch)
    with pytest.raises(azurite.AzuriteError, match=r"reason: getaddrinfo ENOTFOUND registry$"):
        azurite.ensure(tmp_path / "azurite")


def test_no_second_installation_begins_while_the_npm_of_a_killed_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = f"touch '{tmp_path}/runs'; until [ -e '{tmp_path}/end' ]; do sleep 0.1; done"
    put_npm(tmp_path / "bin", waits, monkeypatch)
    program = "import sys; from pathlib import Path; from emulator import azurite; "
    program += "azurite.ensure(Path(sys.argv[1]))"
    folder = tmp_path / "azurite"
    caller = subprocess.Popen([sys.executable, "-c", program, str(folder)], cwd=ROOT)
    try:
        until((tmp_path / "runs").exists)
        caller.kill()
        caller.wait()
        with (folder / "lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        (tmp_path / "end").touch()
        caller.kill()
        caller.wait()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

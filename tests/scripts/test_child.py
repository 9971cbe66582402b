import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from scripts.child import run_to_end
from tests.waiting import until

WAITS = """
import signal, sys, time
def stop(number, frame):
    time.sleep(0.3)
    open("stopped", "w").write(signal.Signals(number).name)
    sys.exit(5)
signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)
open("ready", "w").close()
time.sleep(30)
"""


def signalled(tmp_path: Path, number: signal.Signals) -> int:
    def when_ready() -> None:
        until((tmp_path / "ready").exists)
        os.kill(os.getpid(), number)

    threading.Thread(target=when_ready).start()
    return run_to_end([sys.executable, "-c", WAITS], cwd=tmp_path, env=os.environ)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_is_passed_on_and_the_childs_end_is_waited_for(
    tmp_path: Path, number: signal.Signals
) -> None:
    assert signalled(tmp_path, number) == 5
    assert (tmp_path / "stopped").read_text() == number.name


def test_a_child_that_a_signal_ended_gives_the_shells_code(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_to_end([sys.executable, "-c", code], cwd=tmp_path, env=os.environ) == 137

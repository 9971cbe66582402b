"""A server's processes from outside, by Linux's /proc: who belongs to it, memory, CPU time.

    with Watched(argv, env, log) as server:
        server.tree(); server.cpu_seconds(pids); server.sample()

Memory is the proportional set size (a page that n processes share counts as 1/n in each), summed
over the tree; `sample` notes the most that was seen.
"""

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.table import ChildError

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 15.0
SAMPLE_EVERY = 1.0


def tree(root: int) -> list[int]:
    """The process and all that descend from it, itself first."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [root]
    for pid in found:  # grows while it is read
        found += children.get(pid, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that these processes have used so far; those that are gone count nothing."""
    fields = [_stat(pid) for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields if each) / TICKS


def busy_seconds() -> float:
    """CPU time that anything on this machine has used so far, another machine's share included."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, (PROC / "stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def memory_bytes(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        try:
            text = (PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")
        )
    return total


def command_line(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold anything; empty where the process is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _runs(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"])


def _gone(pids: Iterable[int]) -> bool:
    """Whether all of them end within two seconds."""
    end = time.monotonic() + 2
    while any(map(_runs, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Watched:
    """A process that is started, watched and ended together with its descendants."""

    def __init__(
        self, argv: Sequence[str], env: dict[str, str], log: Path, *, talks: bool = False
    ) -> None:
        self.log = log
        self.peak_bytes = 0
        self._over = threading.Event()
        with log.open("w") as out:
            self.process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else out,
                stderr=out,
                text=True,
                start_new_session=True,
            )
        self._root = self.process.pid
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def __enter__(self) -> "Watched":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        pids = self.tree()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if not _gone(pids):
            for pid in filter(_runs, pids):
                os.kill(pid, signal.SIGKILL)
            _gone(pids)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def tell(self, message: object) -> None:
        """One line of JSON to its stdin; for one that talks."""
        if self.process.stdin is None:
            raise RuntimeError("this process was started with talks=False")
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next line of its stdout; ChildError where it ends or stays silent instead."""
        if self.process.stdout is None:
            raise RuntimeError("this process was started with talks=False")
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            why = "ended" if ready else f"said nothing for {seconds:.0f} s"
            raise ChildError(f"it {why}: {self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def watch(self, root: int) -> None:
        """Look at this process and its descendants instead: a container's are not our children."""
        self._root = root

    def tree(self) -> list[int]:
        return tree(self._root)

    def last_words(self) -> str:
        """The last line of its log that says something."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        return next((line[-300:] for line in reversed(lines) if line), "it wrote nothing")

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_EVERY):
            self.peak_bytes = max(self.peak_bytes, memory_bytes(self.tree()))

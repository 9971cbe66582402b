"""A server on its worst day, for ten minutes: `make soak [MINUTES=10] [CLIENTS=64] [MODEL=folder]`.

    python -m trials.soak --help

Serves the newest tiny-ja run on 127.0.0.1, asks each question once on the quiet server, and then
with all clients at once, in every dialect, length and both forms, one in ten going away midway:

    load             as many clients as the server has room for
    overload         three times as many
    engine killed    kill -9 of the process that has the weights
    worker killed    kill -9 of the process that handles requests
    stopped          SIGTERM

Beside it, probes as Azure ML's, from a process of their own, and the memory of both processes. Then
what clients and machines get wrong, one of each. Ends with 4 where a row of the table is missed.
On a machine that does other work the times are upper bounds.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.serve_watch import memory_bytes, tree
from trials import soak_faults, soak_judge
from trials.server import Server, started
from trials.soak_asks import mixed, questions
from trials.soak_judge import Seen
from trials.soak_load import Event, Load
from trials.table import OUTPUTS, finish

NEWEST = Path("outputs/tiny-ja/latest/merged")
ENGINE_CACHE = Path(".cache/engine")
CROWD = 3
"""Times as many clients in the overload."""
SHARES = {"quiet": 0.1, "load": 0.45, "overload": 0.15, "engine": 0.1, "worker": 0.1, "stop": 0.1}
"""Of the minutes; a kill is in the middle of its part, which lasts until it is recovered from."""
WARM_SHARE = 1 / 3
"""Of the load, in which memory may still grow."""
STOP_SECONDS = 150.0
USAGE_ERROR = 2


def main(words: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    given = environ.get
    parser.add_argument("--minutes", type=float, default=given("MINUTES") or "10")
    parser.add_argument("--clients", type=int, default=given("CLIENTS") or "64")
    parser.add_argument("--model", type=Path, default=given("MODEL") or str(NEWEST))
    parser.add_argument("--folder", type=Path, default=OUTPUTS / "soak", help="for its log")
    parser.add_argument("--engine", default="auto", help="as SERVE_ENGINE")
    parser.add_argument("--no-starts", action="store_true", help="no servers that cannot start")
    asked = parser.parse_args(words)
    if not 0 < asked.minutes <= 600 or not 2 <= asked.clients <= 128:
        print("error: MINUTES is from 0 to 600, CLIENTS from 2 to 128", file=sys.stderr)
        return USAGE_ERROR
    if not (asked.model / "config.json").is_file():
        print(
            f"error: {asked.model} has no model; train one with `make local-train`, or name a "
            "folder: make soak MODEL=folder",
            file=sys.stderr,
        )
        return USAGE_ERROR
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives this
    seen = soak(asked.model, asked.folder, asked.clients, asked.minutes * 60, asked.engine)
    if not asked.no_starts:
        say("servers that cannot start, or have no disk")
        begun = soak_faults.starts(asked.model, asked.folder)
        print(soak_faults.shown(begun), flush=True)
        seen.faults += begun
    return finish("soak", soak_judge.judge(seen), asked.folder.parent)


def soak(model: Path, folder: Path, clients: int, seconds: float, engine: str) -> Seen:
    """All of it, in its order."""
    environ = {
        "SERVE_ENGINE": engine,
        "SERVE_ENGINE_CACHE": str(ENGINE_CACHE.absolute()),
        "SERVE_MAX_CONCURRENT": str(max(2, clients // 2)),  # a list of two takes two places
        "SERVE_MAX_QUEUE": str(clients),
    }
    parts = {name: share * seconds for name, share in SHARES.items()}
    with started(model, folder, environ) as server:
        load = Load(port=server.port, asks=mixed(questions(), seed=1), seed=2)
        seen = Seen(outcomes=load.outcomes)
        say(f"serving {model} at {server.url}; its log: {server.watched.log}")
        load.alone(parts["quiet"])
        seen.asks = load.asks
        say(f"{len(load.asks)} requests asked on the quiet server")
        seen.faults += soak_faults.requests(server.port)
        print(soak_faults.shown(seen.faults), flush=True)
        with _sampled(server, seen), _probed(server, seen):
            _under_load(load, server, seen, clients, parts)
        seen.exit_code = server.process.poll()
    seen.log = server.log()
    _write_memory(seen, folder / "memory.csv")
    return seen


def _under_load(
    load: Load, server: Server, seen: Seen, clients: int, parts: Mapping[str, float]
) -> None:
    began, before = time.monotonic(), _counters(server)
    seen.warm = began + WARM_SHARE * parts["load"]
    say(f"load: {clients} clients for {parts['load']:.0f} s")
    load.run("load", clients=clients, seconds=parts["load"])
    say(f"overload: {CROWD * clients} clients for {parts['overload']:.0f} s")
    load.run("overload", clients=CROWD * clients, seconds=parts["overload"])

    def kill_engine() -> None:
        seen.engine_killed = _kill(server.engine(), "engine")

    seconds = parts["engine"]
    at = Event(after=seconds / 2, act=kill_engine, recovery=soak_judge.RECOVERY_SECONDS)
    load.run("engine killed", clients=clients, seconds=seconds, at=at)
    grown = {key: value - before.get(key, 0) for key, value in _counters(server).items()}
    seen.counted.append((began, time.monotonic(), grown))

    def kill_worker() -> None:
        seen.worker_killed = _kill(server.worker(), "worker")

    seconds = parts["worker"]
    at = Event(after=seconds / 2, act=kill_worker, recovery=soak_judge.RECOVERY_SECONDS)
    load.run("worker killed", clients=clients, seconds=seconds, at=at)
    seen.counted.append((seen.worker_killed, time.monotonic(), _counters(server)))

    def stop() -> None:
        say("SIGTERM")
        seen.stopped = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        waiter.start()

    def wait() -> None:
        server.process.wait()
        seen.stop_seconds = time.monotonic() - seen.stopped

    waiter = threading.Thread(target=wait, daemon=True)

    seconds = parts["stop"]
    load.run("stopped", clients=clients, seconds=seconds, at=Event(after=seconds / 2, act=stop))
    waiter.join(STOP_SECONDS)


def _kill(pid: int, name: str) -> float:
    say(f"kill -9 of the {name}")
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def _counters(server: Server) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as page:  # noqa: S310 - ours
        return soak_judge.counters(page.read().decode())


@contextmanager
def _sampled(server: Server, seen: Seen) -> Iterator[None]:
    """Memory once a second: of the engine's process and those below it, and of all others."""
    over = threading.Event()

    def sample() -> None:
        while not over.wait(1):
            pids = server.watched.tree()
            try:
                engine = set(tree(server.engine()))
            except LookupError:
                engine = set()
            rest = memory_bytes(pid for pid in pids if pid not in engine)
            seen.memory.append((time.monotonic(), rest, memory_bytes(engine)))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _write_memory(seen: Seen, path: Path) -> None:
    """The samples, for who asks where a growth comes from."""
    start = seen.memory[0][0] if seen.memory else 0.0
    rows = [f"{at - start:.1f},{rest},{engine}" for at, rest, engine in seen.memory]
    path.write_text("\n".join(["seconds,request handling in bytes,engine in bytes", *rows, ""]))


@contextmanager
def _probed(server: Server, seen: Seen) -> Iterator[None]:
    argv = [sys.executable, "-m", "trials.soak_probe", str(server.port)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
        said, _ = process.communicate(timeout=30)
        seen.probes = [tuple(each) for each in json.loads(said)]
    finally:
        process.kill()
        process.wait()


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

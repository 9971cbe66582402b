"""Serving side by side: this project's server against others, same model, prompts and machine.

    python -m bench.serve                   `make bench-serve`; about 20 minutes on two cores
    python -m bench.serve --only homeport,bare --callers 16 --rounds 1
    python -m bench.serve --container       ours from its image, with Docker

110 million random parameters in bfloat16; 1, 4, 16 and 64 callers in a closed loop, greedy; prompts
of 64 tokens with 64 new ones, and at 16 callers mixed lengths too. Whole answers give speed and
latency (ours through POST /score), streams the time to the first token (ours through
POST /v1/chat/completions). One side runs at a time and none beside another; the load at 16 callers,
which the targets are about, is measured again after all of them, and the better of the two counts.

"layer CPU" is what our request handling takes per request, the engine's process not counted.
All of it is on the CPU, with two cores shared by the server and the load generator.
"""

import argparse
import dataclasses
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import serve_watch
from bench.serve_cells import JUDGED, MIXED, Cell, CellError, Load, better, cell, grid
from bench.serve_inputs import CONTEXT, Prompt, Prompts
from bench.serve_report import report
from bench.serve_sides import (
    BARE,
    ENGINE_PROCESS,
    OURS,
    RIVALS,
    Ask,
    Side,
    container_root,
    environment,
    ours,
)
from bench.serve_watch import Watched
from bench.table import OUTPUTS, ChildError, child, finish
from serve.engine import environments
from train.runs import write_json

CACHE = Path(".cache")
MODEL = CACHE / "bench-serve" / "110m"
CALLERS = (1, 4, 16, 64)
JUDGED_CALLERS = 16
SLOTS = 64
START_SECONDS = 300.0
CELL_SECONDS = 240.0
WARM_TOKENS = 8


class UnavailableError(RuntimeError):
    """A side cannot be had, or broke; the text says why, in one line."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Found:
    """Everything measured so far."""

    cells: dict[tuple[str, str, int, bool], Cell] = dataclasses.field(default_factory=dict)
    peaks: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    bandwidths: list[float] = dataclasses.field(default_factory=list)

    def add(self, new: Cell) -> None:
        key = (new.side, new.shape, new.callers, new.streamed)
        self.cells[key] = better(self.cells[key], new) if key in self.cells else new


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", default="", help="how the names of sides begin: homeport,bare")
    parser.add_argument("--callers", default=",".join(map(str, CALLERS)), help="such as 1,16")
    parser.add_argument("--rounds", type=int, default=2, choices=(1, 2))
    parser.add_argument(
        "--engine", default="", help="ours and the bare one; default: the fastest here"
    )
    parser.add_argument("--container", action="store_true", help="ours from homeport-serve:cpu")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives this
    engine = asked.engine or ("openvino" if environments.installed("openvino") else "transformers")
    sides: list[Side | None] = [ours(engine, MODEL, container=asked.container), None, *RIVALS]
    chosen = [side for side in sides if _wanted(side.name if side else BARE, asked.only)]
    loads = [Load(shape=JUDGED, callers=int(callers)) for callers in asked.callers.split(",")]
    again = [load for load in loads if load.callers == JUDGED_CALLERS]
    loads += [Load(shape=MIXED, callers=load.callers) for load in again]
    made, _ = child("bench.serve_inputs", [str(MODEL)], environment({}))
    weight_bytes = int(made["weight_bytes"])
    found = Found()
    for number, wanted in enumerate([loads, again][: asked.rounds]):
        compare(chosen, engine, wanted, number, weight_bytes, found)
    best = max(found.bandwidths)
    print(grid(list(found.cells.values()), best, weight_bytes))
    for name, why in found.left_out.items():
        print(f"{name}: left out: {why}")
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    write_json(OUTPUTS / "serve-cells.json", [dataclasses.asdict(c) for c in found.cells.values()])
    finish("serve", report(found.cells, found.peaks, best, weight_bytes))
    return 1 if OURS in found.left_out else 0


def compare(
    sides: Sequence[Side | None],
    engine: str,
    loads: Sequence[Load],
    number: int,
    weight_bytes: int,
    found: Found,
) -> None:
    """One after the other, and the machine's bandwidth before each; None is the bare engine."""
    model = (MODEL / "model").absolute()
    for side in sides:
        name = side.name if side else BARE
        if name in found.left_out:
            continue
        read, _ = child("bench.serve_bandwidth", [str(weight_bytes)], environment({}))
        found.bandwidths.append(read["bytes_per_second"])
        try:
            if side is None:
                measure_bare(engine, model, loads, number, found)
            else:
                measure(side, model, loads, number, found)
        except (UnavailableError, CellError, ChildError) as error:
            found.left_out[name] = str(error)
            say(f"{name}: left out: {error}")


def measure(side: Side, model: Path, loads: Sequence[Load], number: int, found: Found) -> None:
    """Start one server, put every load on it, end it."""
    prefix = side.prepare(CACHE)
    if isinstance(prefix, str):
        raise UnavailableError(prefix)
    port = free_port()
    try:
        argv, more = side.command(prefix, model, port, SLOTS)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        raise UnavailableError(said[-1] if said else str(error)) from error
    with tempfile.TemporaryDirectory() as folder:
        with Watched(argv, environment(more), Path(folder) / "log") as server:
            first = Prompts(MODEL / "words.json", seed=0).make(64, 1)
            wait_until_ready(server, port, side.whole(first, model))
            if argv[0] == "docker":
                server.watch(container_root(port))
            for load in loads:
                if side.most_callers and load.callers > side.most_callers:
                    continue
                for streamed in (False, True) if side.streamed else (False,):
                    found.add(_one(side, server, model, port, load, streamed, number))
                    say_cell(found, side.name, load, streamed)
        found.peaks[side.name] = max(server.peak_bytes, found.peaks.get(side.name, 0))


def _one(
    side: Side, server: Watched, model: Path, port: int, load: Load, streamed: bool, number: int
) -> Cell:
    prompts, warm = draw(load, streamed, number, side.most_requests)
    ask = side.streamed if streamed and side.streamed else side.whole
    layer = request_handlers(server) if side.name == OURS else []
    job = {
        "port": port,
        "callers": load.callers,
        "asks": [ask(prompt, model) for prompt in prompts],
        "warm": [ask(prompt, model) for prompt in warm],
        # its own work per request would be told with the probes' in it
        "probe": None if layer and not streamed else side.probe,
        "limit_seconds": CELL_SECONDS,
        "server": server.tree(),
        "layer": layer,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.serve_load"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UnavailableError(done.stderr.strip().splitlines()[-1])
    measured = json.loads(done.stdout)
    if not layer:
        del measured["layer_seconds"]
    asked = [(len(prompt.ids), prompt.new_tokens) for prompt in prompts]
    return cell(side.name, load, streamed=streamed, measured=measured, asked=asked)


def measure_bare(
    engine: str, model: Path, loads: Sequence[Load], number: int, found: Found
) -> None:
    """The same for the engine on its own; one run gives speed, latency and first tokens."""
    python = environments.python(engine)
    if not python.is_file():
        raise UnavailableError(f"{python} is not there")
    settings = {
        "engine": engine,
        "root": str(model),
        "slots": SLOTS,
        "context": CONTEXT,
        "cache": str((MODEL / "engine").absolute()),
    }
    argv = [str(python), "-m", "bench.serve_bare", json.dumps(settings)]
    with tempfile.TemporaryDirectory() as folder:
        with Watched(argv, environment({}), Path(folder) / "log", talks=True) as process:
            version = process.answer(START_SECONDS)["version"]
            say(f"{BARE}: {version}")
            for load in loads:
                prompts, warm = draw(load, False, number, None)
                job = {
                    "callers": load.callers,
                    "asks": [(prompt.ids, prompt.new_tokens) for prompt in prompts],
                    "warm": [(prompt.ids, prompt.new_tokens) for prompt in warm],
                }
                others = -serve_watch.busy_seconds() + serve_watch.cpu_seconds(process.tree())
                process.tell(job)
                measured = process.answer(CELL_SECONDS)
                others += serve_watch.busy_seconds() - serve_watch.cpu_seconds(process.tree())
                measured["other_seconds"] = others
                asked = [(len(prompt.ids), prompt.new_tokens) for prompt in prompts]
                for streamed in (False, True):
                    found.add(cell(BARE, load, streamed=streamed, measured=measured, asked=asked))
                say_cell(found, BARE, load, False)
        found.peaks[BARE] = max(process.peak_bytes, found.peaks.get(BARE, 0))


def draw(
    load: Load, streamed: bool, number: int, most: int | None
) -> tuple[list[Prompt], list[Prompt]]:
    """The requests of one cell and those of its warm-up round: for every side the same ones."""
    count = min(load.requests, most or load.requests)
    seed = load.callers * 8 + (load.shape == MIXED) * 4 + streamed * 2 + number
    prompts = Prompts(MODEL / "words.json", seed)
    made = prompts.mixed(count) if load.shape == MIXED else prompts.equal(count)
    return made, prompts.equal(min(load.callers, count), new_tokens=WARM_TOKENS)


def request_handlers(server: Watched) -> list[int]:
    """Our processes but those that compute; none where both are one process."""
    pids = server.tree()
    roots = [pid for pid in pids if ENGINE_PROCESS in serve_watch.command_line(pid)]
    computing = {pid for root in roots for pid in serve_watch.tree(root)}
    return [pid for pid in pids if pid not in computing] if roots else []


def wait_until_ready(server: Watched, port: int, ask: Ask) -> None:
    """Until a first request is answered."""
    end = time.monotonic() + START_SECONDS
    said = "nothing"
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise UnavailableError(f"it ended at its start: {server.last_words()}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", ask[0], ask[1], {"Content-Type": "application/json"})
            response = connection.getresponse()
            said = f"{response.status} {response.read(300).decode(errors='replace')}"
            if response.status == 200:
                return
        except (OSError, http.client.HTTPException) as error:
            said = str(error)
        finally:
            connection.close()
        time.sleep(0.5)
    raise UnavailableError(f"no answer within {START_SECONDS:.0f} s of its start, but {said}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _wanted(name: str, only: str) -> bool:
    return not only or any(name.startswith(part) for part in only.split(","))


def say_cell(found: Found, side: str, load: Load, streamed: bool) -> None:
    done = found.cells[side, load.shape, load.callers, streamed]
    what = f"{done.tokens_per_second:,.0f} tokens/s, p50 {done.p50:.2f} s"
    if done.first_p50 is not None:
        what += f", first token {done.first_p50 * 1000:.0f} ms"
    say(f"{side}, {load.shape}, {load.callers} callers: {what}")


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

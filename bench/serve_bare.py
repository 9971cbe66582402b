"""An engine without our server around it: the same Backend, driven directly in its own process.

    python -m bench.serve_bare SETTINGS     SETTINGS as JSON: engine, root, slots, context, cache

Prints {"version"} once it has loaded; then reads one job a line from stdin, {"callers", "asks",
"warm"} with [ids, new tokens] per ask, and prints {"seconds", "answers"} as bench.serve_load does.
A closed loop as there: a stream that ends is followed by the next at once. Run it with the
interpreter that has the engine's packages.
"""

import importlib
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.engine import Backend, EngineSpec, Sampling


@dataclass(slots=True)
class Stream:
    """One generation under way."""

    started: float
    prompt_tokens: int
    first: float | None = None
    new_tokens: int = 0


def run(backend: Backend, callers: int, asks: Sequence[tuple[list[int], int]]) -> dict[str, Any]:
    """Every ask once, `callers` at a time."""
    waiting = deque(enumerate(asks))
    under_way: dict[int, Stream] = {}
    answers: list[dict[str, Any]] = []
    started = time.perf_counter()
    while waiting or under_way:
        while waiting and len(under_way) < callers:
            number, (ids, new_tokens) = waiting.popleft()
            under_way[number] = Stream(time.perf_counter(), len(ids))
            backend.add(number, ids, Sampling(max_new_tokens=new_tokens))
        for piece in backend.step():
            stream = under_way[piece.id]
            now = time.perf_counter()
            if piece.ids and stream.first is None:
                stream.first = now - stream.started
            stream.new_tokens += len(piece.ids)
            if piece.finish or piece.error:
                del under_way[piece.id]
                answers.append(
                    {
                        "seconds": now - stream.started,
                        "first": stream.first,
                        "prompt_tokens": stream.prompt_tokens,
                        "new_tokens": stream.new_tokens,
                        "error": piece.error or "",
                    }
                )
    return {"seconds": time.perf_counter() - started, "answers": answers}


def main() -> None:
    settings = json.loads(sys.argv[1])
    # what libraries print must not mix with the answers
    with os.fdopen(os.dup(1), "w", buffering=1) as out:
        os.dup2(2, 1)
        logging.basicConfig(level="INFO")
        module = importlib.import_module(f"serve.engine.{settings['engine']}_engine")
        backend: Backend = module.load(
            EngineSpec(
                engine=settings["engine"],
                root=Path(settings["root"]),
                device="cpu",
                dtype="bfloat16",
                concurrency=settings["slots"],
                context=settings["context"],
                cache=Path(settings["cache"]),
            )
        )
        print(json.dumps({"version": backend.info.version}), file=out)
        for line in sys.stdin:
            job = json.loads(line)
            run(backend, job["callers"], job["warm"])
            print(json.dumps(run(backend, job["callers"], job["asks"])), file=out)
        backend.close()


if __name__ == "__main__":
    main()

"""The engine's process: one backend, driven by what arrives over one socket.

    python -m serve.engine.process <file descriptor>      # started by supervisor.py, nobody else

Messages are JSON, one per frame of multiprocessing.connection. In comes first the EngineSpec, then
{"add": …}, {"cancel": …}; out go {"ready": …} or {"refused": sentence}, then {"pieces": …} after
each step and {"beat": …} every second, from which the supervisor sees that the loop turns. When the
socket closes, or the parent is gone, the process ends. Signals that end the server are ignored: it
drains first, and this is what it drains with.
"""

import gc
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from serve.engine import Backend, EngineSpec, Logprob, Piece, Sampling
from serve.errors import StartupError

log = logging.getLogger("serve.engine")

BEAT_SECONDS = 1.0
NICE = 5
"""Request handling goes first on the cores that both use: it is little, and all wait for it."""
GATHER_SECONDS = 0.004
"""How long the first of a crowd waits for the next, so that their prompts share a step."""


Loader = Callable[[EngineSpec], Backend]


def main(descriptor: int, load: Loader | None = None) -> None:
    """Load what the first message names, then serve until the socket closes."""
    os.nice(NICE)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname).1s %(name)s - %(message)s", level="INFO")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with Connection(descriptor) as connection:
        spec = spec_from(json.loads(connection.recv_bytes()))
        try:
            if load is None:
                load = importlib.import_module(f"serve.engine.{spec.engine}_engine").load
            backend = load(spec)
        except StartupError as error:
            _send(connection, {"refused": str(error)})
            return
        gc.collect()
        gc.freeze()  # what is loaded stays: going over all of it for garbage stops a step
        info = asdict(backend.info)
        _send(connection, {"ready": info | {"features": sorted(info["features"])}})
        try:
            Loop(connection, backend).run()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            backend.close()


class Loop:
    """Reads requests between two steps, and writes what each step gave."""

    def __init__(self, connection: Connection, backend: Backend) -> None:
        self._connection = connection
        self._backend = backend
        self._deadlines: dict[int, float] = {}
        """Of the generations under way, on time.monotonic's clock."""
        self._whole: dict[int, Piece] = {}
        """What there is so far of those that are wanted whole."""
        self._last_beat = 0.0
        self._crowd = 0
        """Most generations at once since it last stood idle."""

    def run(self) -> None:
        """Until the socket closes (EOFError) or the backend fails."""
        while True:
            self.turn()

    def turn(self) -> None:
        pieces: list[Piece] = []
        idle = not self._deadlines
        wait = BEAT_SECONDS if idle else 0.0
        while self._connection.poll(wait):
            pieces += self._obey(json.loads(self._connection.recv_bytes()))
            wait = GATHER_SECONDS if idle and self._crowd > 1 else 0.0
        self._crowd = len(self._deadlines) if idle else max(self._crowd, len(self._deadlines))
        if self._deadlines:
            for piece in [*self._backend.step(), *self._late()]:
                if piece.id in self._deadlines and (new := self._kept_back(piece)):
                    pieces.append(new)
        if pieces:
            _send(self._connection, {"pieces": [_packed(piece) for piece in pieces]})
        now = time.monotonic()
        if now - self._last_beat >= BEAT_SECONDS:
            self._last_beat = now
            _send(self._connection, {"beat": now})

    def _obey(self, message: dict[str, Any]) -> list[Piece]:
        if "cancel" in message:
            number = message["cancel"]
            self._whole.pop(number, None)
            if self._deadlines.pop(number, None) is not None:
                self._backend.cancel(number)
            return []
        number = message["add"]
        sampling = message["sampling"]
        sampling["stop_ids"] = frozenset(sampling["stop_ids"])
        try:
            self._backend.add(number, message["ids"], Sampling(**sampling))
        except ValueError as error:
            return [Piece(id=number, error=str(error))]
        self._deadlines[number] = message["deadline"]
        if message["whole"]:
            self._whole[number] = Piece(id=number)
        return []

    def _kept_back(self, piece: Piece) -> Piece | None:
        """What of it is to be sent now: the piece, or all there is, or nothing yet."""
        over = bool(piece.finish or piece.error)
        if over:
            del self._deadlines[piece.id]
        held = self._whole.get(piece.id)
        if held is None:
            return piece
        if held.first is None and piece.ids:
            held.first = time.monotonic()
        held.add(piece)
        return self._whole.pop(piece.id) if over else None

    def _late(self) -> list[Piece]:
        now = time.monotonic()
        late = [number for number, deadline in self._deadlines.items() if now >= deadline]
        for number in late:
            self._backend.cancel(number)
        return [Piece(id=number, finish="deadline") for number in late]


def spec_to(spec: EngineSpec) -> dict[str, Any]:
    """The spec as JSON values."""
    adapters = {name: str(path) for name, path in spec.adapters.items()}
    paths = {"root": str(spec.root), "cache": spec.cache and str(spec.cache), "adapters": adapters}
    return asdict(spec) | paths


def spec_from(message: dict[str, Any]) -> EngineSpec:
    """What spec_to made, as a spec again."""
    adapters = {name: Path(path) for name, path in message["adapters"].items()}
    cache = message["cache"] and Path(message["cache"])
    return EngineSpec(
        **message | {"root": Path(message["root"]), "cache": cache, "adapters": adapters}
    )


def unpacked(packed: list[Any]) -> Piece:
    """A piece out of a {"pieces": …} message."""
    number, ids, finish, error, first, logprobs = packed
    values = None
    if logprobs is not None:
        values = [
            Logprob(logprob=own, top=tuple((i, value) for i, value in top)) for own, top in logprobs
        ]
    return Piece(id=number, ids=ids, finish=finish, error=error, first=first, logprobs=values)


def _packed(piece: Piece) -> list[Any]:
    logprobs = None
    if piece.logprobs is not None:
        logprobs = [[value.logprob, value.top] for value in piece.logprobs]
    return [piece.id, piece.ids, piece.finish, piece.error, piece.first, logprobs]


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _end_with(parent: int) -> None:
    """End when the parent is gone, also in the middle of a step that takes long or never ends."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))

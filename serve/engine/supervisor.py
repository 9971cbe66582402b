"""Keeps one engine process alive, and shares it between the threads of request handling.

    engine = Supervisor(spec, python=sys.executable)      # waits until the weights are loaded
    with engine.session() as session: ...

A process that dies or falls silent costs its generations (EngineError) and nothing else: it is
started anew, each time after a longer pause. Only the very first start may refuse, with
StartupError. Nothing here knows what a token means.
"""

import contextlib
import itertools
import json
import logging
import math
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from serve.engine import EngineError, EngineInfo, EngineSpec, Piece, Sampling
from serve.engine.process import BEAT_SECONDS, spec_to, unpacked
from serve.errors import StartupError

log = logging.getLogger("azmlinfsrv.serve")

ROOT = Path(__file__).resolve().parents[2]
SAMPLING = tuple(field.name for field in fields(Sampling))
SILENT_SECONDS = 120.0
"""Without a sign of life, the process is taken for stuck; a step of a large model takes seconds."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a restart: doubled each time, and the first again after a minute of good work."""
STEADY_SECONDS = 60.0
GRACE_SECONDS = 5.0
"""Beyond a generation's deadline, for the engine to say so itself."""


class Supervisor:
    """An Engine whose weights live in another process."""

    def __init__(self, spec: EngineSpec, *, python: str, module: str = "serve.engine.process"):
        self._spec = spec
        self._command = [python, "-m", module]
        self._lock = threading.Lock()
        self._sending = threading.Lock()  # apart: a full socket must not keep pieces from coming in
        self._sessions: dict[int, RemoteSession] = {}
        self._numbers = itertools.count(1)
        self._state = "the engine is starting"
        self._closed = False
        self.restarts = 0
        self._process, self._connection = self._spawn()
        try:
            self._info = self._until_ready()
        except BaseException:
            self.close()
            raise
        self._state = ""
        threading.Thread(target=self._watch, name="engine", daemon=True).start()

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def state(self) -> str:
        return self._state

    @property
    def pid(self) -> int:
        return self._process.pid

    def session(self, *, whole: bool = False) -> "RemoteSession":
        return RemoteSession(self, whole=whole)

    def close(self) -> None:
        """End the process; what runs fails."""
        self._closed = True
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def start(
        self, session: "RemoteSession", ids: Sequence[int], sampling: Sampling, deadline: float
    ) -> int:
        """Send one generation to the process; its pieces will come to the session."""
        number = next(self._numbers)
        message = {
            "add": number,
            "ids": list(ids),
            "sampling": {name: getattr(sampling, name) for name in SAMPLING}
            | {"stop_ids": sorted(sampling.stop_ids)},
            "deadline": deadline,
            "whole": session.whole,
        }
        with self._lock:
            if self._state:
                raise self._gone()
            self._sessions[number] = session
        self._send(message)  # if it cannot be sent, the process is dead and the session told so
        return number

    def cancel(self, number: int) -> None:
        """Forget a generation, here and in the process."""
        with self._lock:
            known = self._sessions.pop(number, None)
        if known is not None:
            self._send({"cancel": number})

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(message).encode())

    def _spawn(self) -> tuple["subprocess.Popen[bytes]", Connection]:
        ours, theirs = Pipe()
        paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
        process = subprocess.Popen(  # noqa: S603 - our own module
            [*self._command, str(theirs.fileno())],
            env=env,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the server, which then drains
        )
        theirs.close()
        ours.send_bytes(json.dumps(spec_to(self._spec)).encode())
        return process, ours

    def _until_ready(self) -> EngineInfo:
        """Wait for the weights; StartupError with the engine's own sentence, or how it ended."""
        try:
            message = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            code = self._process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            hint = " (the machine may be out of memory)" if code == -9 else ""
            raise StartupError(
                f"the {self._spec.engine} engine ended while it loaded the weights: {how}{hint}; "
                "the log above says more."
            ) from None
        if "refused" in message:
            raise StartupError(message["refused"])
        ready = message["ready"]
        return EngineInfo(**ready | {"features": frozenset(ready["features"])})

    def _watch(self) -> None:
        """Hand out what comes in; when nothing comes any more, start the process anew."""
        pause = FIRST_PAUSE
        while not self._closed:
            started = time.monotonic()
            why = self._hand_out()
            if self._closed:
                return
            self._connection.close()
            if time.monotonic() - started > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._fail_all(f"the engine {why} and is starting again")
            while not self._closed:
                log.error("the engine %s; starting it again in %.1f s", why, pause)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                self.restarts += 1
                try:
                    self._process, self._connection = self._spawn()
                    self._info = self._until_ready()
                except (StartupError, OSError) as error:
                    why = f"did not start again: {error}"
                    self._state = f"the engine {why}"
                    continue
                log.info("the engine is ready again after %.1f s", self._info.load_seconds)
                self._state = ""
                break

    def _hand_out(self) -> str:
        """Pass pieces on until the process ends or falls silent; in words, which of the two."""
        last = time.monotonic()
        while True:
            try:
                if not self._connection.poll(BEAT_SECONDS):
                    if time.monotonic() - last > SILENT_SECONDS:
                        self._process.kill()
                        self._process.wait()
                        return f"gave no sign of life for {SILENT_SECONDS:.0f} s"
                    continue
                message = json.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                code = self._process.wait()
                return f"died of signal {-code}" if code < 0 else f"ended with exit code {code}"
            last = time.monotonic()
            for piece in map(unpacked, message.get("pieces", ())):
                over = bool(piece.finish or piece.error)
                with self._lock:
                    take = self._sessions.pop if over else self._sessions.get
                    session = take(piece.id, None)
                if session is not None:
                    session.put(piece)

    def _fail_all(self, state: str) -> None:
        with self._lock:
            self._state = state
            failed, self._sessions = self._sessions, {}
        for session in set(failed.values()):
            session.fail(self._gone())

    def _gone(self) -> EngineError:
        retry = max(1, math.ceil(self._info.load_seconds + FIRST_PAUSE))
        sentence = f"{self._state or 'the engine is not there'}; retry in {retry} s."
        return EngineError(sentence, retry_after=retry)


class RemoteSession:
    """The generations of one request; used by that request's thread, filled by the supervisor's."""

    def __init__(self, engine: Supervisor, *, whole: bool) -> None:
        self.whole = whole
        self._engine = engine
        self._changed = threading.Condition()
        self._pieces: dict[int, Piece] = {}
        self._deadlines: dict[int, float] = {}
        self._error: EngineError | None = None
        self.first_token: float | None = None

    @property
    def running(self) -> frozenset[int]:
        return frozenset(self._deadlines)

    def start(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline: float) -> int:
        number = self._engine.start(self, prompt_ids, sampling, deadline)
        self._deadlines[number] = deadline
        return number

    def take(self, timeout: float) -> list[Piece]:
        with self._changed:
            if not self._pieces and self._error is None:
                self._changed.wait(timeout)
            if self._error is not None:
                raise self._error
            taken, self._pieces = self._pieces, {}
        pieces = list(taken.values())
        pieces = [piece for piece in pieces if piece.id in self._deadlines]  # not the cancelled
        for piece in pieces:
            if piece.error is not None:
                raise EngineError(piece.error)
            if piece.finish:
                self._deadlines.pop(piece.id, None)
        return pieces or self._late()

    def cancel(self, number: int) -> None:
        self._engine.cancel(number)
        self._deadlines.pop(number, None)
        with self._changed:
            self._pieces.pop(number, None)

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(self, *error: object) -> None:
        for number in self.running:
            self.cancel(number)

    def put(self, piece: Piece) -> None:
        """In the supervisor's thread."""
        if self.first_token is None and piece.ids:
            self.first_token = piece.first or time.monotonic()
        with self._changed:
            if held := self._pieces.get(piece.id):
                held.add(piece)
            else:
                self._pieces[piece.id] = piece
            self._changed.notify()

    def fail(self, error: EngineError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify()

    def _late(self) -> list[Piece]:
        """The end of generations of which the engine should long have said that they are over."""
        now = time.monotonic()
        late = [n for n, deadline in self._deadlines.items() if now > deadline + GRACE_SECONDS]
        with self._changed:
            pieces = [self._pieces.pop(number, Piece(id=number)) for number in late]
        for piece in pieces:
            piece.finish = "deadline"
            self.cancel(piece.id)
        return pieces

"""An engine that says what it is told to, for tests of request handling."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from serve.admission import Admission
from serve.engine import EngineError, EngineInfo, Feature, Piece, Sampling
from serve.kept import Kept
from serve.metrics import Metrics
from serve.model import Model, ModelDefaults
from serve.settings import Settings

EVERYTHING: frozenset[Feature] = frozenset(get_args(Feature))


class FakeEngine:
    """Answers each generation with `pieces` (ids, reason), one per take."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.error: Exception | None = None
        self.asked: list[tuple[Sequence[int], Sampling]] = []
        self.cancelled: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        """Cleared: nothing comes."""
        self.info = EngineInfo(
            version="fake 1", load_seconds=0, attention="none", features=EVERYTHING
        )
        self.state = ""
        self.restarts = 0
        self.open_sessions = 0

    def says(self, ids: Sequence[int], finish: Any = "stop", *, at_once: int = 1) -> None:
        cuts = range(0, len(ids), at_once)
        self.pieces = [Piece(id=0, ids=list(ids[cut : cut + at_once])) for cut in cuts]
        self.pieces.append(Piece(id=0, finish=finish))

    def session(self, *, whole: bool = False) -> "FakeSession":
        return FakeSession(self, whole)

    def close(self) -> None:
        pass


class FakeSession:
    def __init__(self, engine: FakeEngine, whole: bool) -> None:
        self._whole = whole
        self._engine = engine
        self._left: dict[int, list[Piece]] = {}
        self.first_token: float | None = None

    @property
    def running(self) -> frozenset[int]:
        return frozenset(self._left)

    def start(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline: float) -> int:
        if self._engine.error is not None:
            raise self._engine.error
        self._engine.asked.append((prompt_ids, sampling))
        number = len(self._engine.asked)
        self._left[number] = list(self._engine.pieces)
        return number

    def take(self, timeout: float) -> list[Piece]:
        if not self._engine.hold.wait(timeout):
            return []
        self.first_token = self.first_token or time.monotonic()
        pieces = []
        for number, left in list(self._left.items()):
            ids: list[int] = []
            while True:
                piece = left.pop(0)
                ids += piece.ids
                if not self._whole or piece.finish:
                    break
            if piece.error is not None:
                raise EngineError(piece.error)
            if piece.finish:
                del self._left[number]
            pieces.append(Piece(id=number, ids=ids, finish=piece.finish, logprobs=piece.logprobs))
        return pieces

    def cancel(self, number: int) -> None:
        self._left.pop(number, None)
        self._engine.cancelled.append(number)

    def __enter__(self) -> "FakeSession":
        self._engine.open_sessions += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.open_sessions -= 1
        for number in self.running:
            self.cancel(number)


def kept(engine: Any, tokenizer: Any, **settings: Any) -> Kept:
    """What a loaded server keeps, around an engine of a test."""
    chosen = Settings(**settings)
    admission = Admission(running=chosen.max_concurrent, waiting=chosen.max_queue)
    state: Callable[[], tuple[bool, int]] = lambda: (not engine.state, engine.restarts)  # noqa: E731
    return Kept(
        settings=chosen,
        model=Model(
            root=Path("x"),
            name="tiny",
            architecture="gpt_oss",
            context=4096,
            parameters=1,
            defaults=ModelDefaults(),
            tokenizer=Path("x"),
            adapters={"pirate": Path("y")},
        ),
        tokenizer=tokenizer,
        engine=engine,
        engine_name="fake",
        admission=admission,
        metrics=Metrics(load=lambda: admission.load, engine=state),
    )

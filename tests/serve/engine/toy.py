"""A backend without a model: it counts on from the prompt's last id. Faults are asked for by id.

Run as a process of its own by the tests of the supervisor; what is under test is all but the model.
"""

import os
import sys
import time
from collections.abc import Sequence

from serve.engine import EngineInfo, EngineSpec, Piece, Sampling
from serve.engine.process import main
from serve.errors import StartupError

REFUSE_TO_LOAD, REFUSE, DIE, HANG, STEP_SECONDS = "refuse", 900, 901, 902, 0.01


class Toy:
    def __init__(self, spec: EngineSpec) -> None:
        if spec.dtype == REFUSE_TO_LOAD:
            raise StartupError("this model is not for me.")
        self.info = EngineInfo(version="toy 1", load_seconds=0.1, attention="none")
        self.running: dict[int, tuple[int, int, frozenset[int]]] = {}

    def add(self, number: int, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        if prompt_ids[-1] == REFUSE:
            raise ValueError("not this one")
        self.running[number] = (prompt_ids[-1], sampling.max_new_tokens, sampling.stop_ids)

    def cancel(self, number: int) -> None:
        self.running.pop(number, None)

    def step(self) -> list[Piece]:
        time.sleep(STEP_SECONDS)
        pieces = []
        for number, (last, left, stops) in list(self.running.items()):
            if last == DIE:
                os._exit(7)
            if last == HANG:
                time.sleep(3600)
            piece = Piece(id=number, ids=[last + 1])
            self.running[number] = (last + 1, left - 1, stops)
            if last + 1 in stops or left == 1:
                piece.finish = "stop" if last + 1 in stops else "length"
                del self.running[number]
            pieces.append(piece)
        return pieces

    def close(self) -> None:
        self.running.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]), Toy)

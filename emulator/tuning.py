"""Really tunes the tiny model on given rows, and really serves what came of it.

    tuned = tune(azure, Wanted(name="ftjob-1", rows=…, form="chat", epochs=3), canceled=…, log=…)
    with serve(azure, "dep-1", tuned.folder) as served:
        host, port = served.address

What Azure's other routes train on its own machines with its own programs is here `python -m train`
in the train image, on a base of 1.5 million parameters, under settings by which few rows are
learnt by heart. The caller's rows, epochs, seed and learning rate count; nothing else of Azure's
training is claimed.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from emulator.azure import Azure


class TuningError(Exception):
    """The rows cannot be learnt, or the program failed: one sentence. `log` has told the rest."""


class TuningCanceled(TuningError):
    """`canceled` was set; its programs have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be tuned."""

    name: str
    """Unique among those that run; part of folders' and containers' names."""
    rows: Path
    """JSON lines: {"messages": [...]} (chat), or {"text": …, "ground_truth": …} and the like."""
    validation: Path | None = None
    form: Literal["chat", "text"] = "chat"
    epochs: float = 1.0
    """As the caller of Azure's API gave them; more passes than that may be made over few rows."""
    seed: int = 42
    learning_rate: float | None = None
    """None is the rehearsal's own. A caller's is meant for another model and is only bounded."""
    max_length: int | None = None
    checkpoints: bool = False
    """Keep the merged model of each of the last three epochs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measured step."""

    step: int
    train_loss: float
    valid_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The model as it was on the way."""

    step: int
    epoch: int
    folder: Path
    train_loss: float
    valid_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came of it."""

    folder: Path
    """config.json, *.safetensors and the tokenizer: a whole model."""
    losses: tuple[Step, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    """Oldest first; the last one is the model itself."""


def tune(
    azure: Azure,
    wanted: Wanted,
    *,
    canceled: threading.Event,
    log: Callable[[bytes], None],
) -> Tuned:
    """Train; `log` gets what the programs write, piece by piece. TuningError where it fails.

    What it leaves lies below `azure.settings.folder / "tuned" / wanted.name`.
    """
    raise NotImplementedError


class Served:
    """A server that answers for a model."""

    address: tuple[str, int]

    def log(self) -> bytes:
        """All that it has written."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it and take away what is left of it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve(
    azure: Azure, name: str, folder: Path, *, canceled: threading.Event | None = None
) -> Served:
    """Start the serve image on a model's folder and wait until it is ready.

    TuningError where it ends before, TuningCanceled where `canceled` is set meanwhile. The routes
    are serve's: /v1/chat/completions, /score and the rest, at http://HOST:PORT.
    """
    raise NotImplementedError

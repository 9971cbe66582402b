"""The engine: token ids in, token ids out. The only part of serve/ that knows torch.

    engine = load(EngineSpec(...))
    with closing(engine.generate(prompt_ids, sampling, deadline=monotonic() + 60)) as generation:
        ids = list(generation)
    generation.finish_reason

Another engine is another module here that keeps these protocols; ids, numbers and a deadline on
the system-wide monotonic clock are all that crosses, so an engine may live in a process of its
own. It knows no text, no requests and no HTTP. Importing this module does not import torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "deadline", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What this machine can compute on."""

    gpu: str | None
    """Name of the first CUDA GPU that torch can use."""
    no_gpu: str
    """Why there is none; a sentence part."""
    gpu_bf16: bool
    cpu_flags: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What to load, all decided beforehand."""

    engine: str
    root: Path
    device: str
    dtype: str
    concurrency: int
    """Generations that run at the same time; more of them wait their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one answer is drawn; validated by whoever made it."""

    max_new_tokens: int
    do_sample: bool = False
    temperature: float | None = None
    """None is the model's own, else 1. Only with do_sample, as top_p."""
    top_p: float | None = None
    stop_ids: frozenset[int] = frozenset()
    """Ids that end the answer, beside those that the model itself names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What was loaded, for the log."""

    load_seconds: float
    attention: str


class Generation(Protocol):
    """New ids one by one, the stop id among them. Whoever takes it must close it."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while it runs."""

    def __iter__(self) -> "Generation": ...

    def __next__(self) -> int: ...

    def close(self) -> None:
        """Cancel if it still runs; does not wait, and may be called again."""


class Engine(Protocol):
    """A loaded model."""

    @property
    def info(self) -> EngineInfo: ...

    def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline: float
    ) -> Generation:
        """Start one generation; it ends by itself at the deadline (time.monotonic)."""

    def close(self) -> None:
        """Cancel what runs and take no more."""


def probe() -> Hardware:
    """Look at this machine (imports torch)."""
    from serve.engine import hardware

    return hardware.probe()


def load(spec: EngineSpec) -> Engine:
    """Load the model into the engine that the spec names (imports torch), or StartupError."""
    from serve.engine import transformers_engine

    return transformers_engine.load(spec)

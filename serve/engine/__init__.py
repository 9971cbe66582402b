"""The engine: token ids in, token ids out, in a process of its own. It holds the weights.

    with engine.session() as session:
        number = session.start(prompt_ids, sampling, deadline=time.monotonic() + 60)
        while session.running:
            for piece in session.take(timeout=1.0): ...

Two halves. Request handling sees Engine and Session; supervisor.py keeps both and starts, watches
and restarts the process. In that process, process.py drives one Backend, a module here over an
engine that exists (transformers, OpenVINO GenAI, vLLM), under an interpreter that may have packages
of its own. Ids, numbers and a deadline on the system-wide monotonic clock are all that crosses; it
knows no text, no requests and no HTTP. Importing this module imports none of the engines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "deadline", "cancelled"]
Feature = Literal[
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "logprobs",
    "top_logprobs",
    "json_schema",
    "adapters",
]
"""What an engine may be unable to do; a request that asks for it is refused then, not misread."""


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
    """Folder of the model: config.json, safetensors, tokenizer."""
    device: str
    """cpu or cuda."""
    dtype: str
    """float32, bfloat16 or float16."""
    concurrency: int
    """Most generations at the same time."""
    context: int
    """Most tokens of prompt and answer together; no request exceeds it."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapter folders by the name that requests choose them by."""
    cache: Path | None = None
    """Folder for what is made of the weights once, such as a conversion; None is temporary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one answer is drawn; validated by whoever made it, for what the engine announced."""

    max_new_tokens: int
    do_sample: bool = False
    """False is greedy: temperature, top_p, top_k, min_p and seed then play no part."""
    temperature: float | None = None
    """At least 0.001. None is the model's own (generation_config.json), as for top_p and top_k."""
    top_p: float | None = None
    top_k: int | None = None
    """0 is off."""
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logprobs: int | None = None
    """None is off; 0 the chosen tokens' own; n the n likeliest besides."""
    stop_ids: frozenset[int] = frozenset()
    """Ids that end the answer, beside those that the model itself names."""
    json_schema: str | None = None
    """A JSON schema, as JSON, that the whole answer keeps to."""
    adapter: str | None = None
    """A name from EngineSpec.adapters; None is the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What was loaded."""

    version: str
    """Of the package behind it, such as `openvino-genai 2026.4`."""
    load_seconds: float
    attention: str
    features: frozenset[Feature] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprob:
    """One generated token's log probability, and the likeliest tokens at its place."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """(id, log probability), likeliest first."""


@dataclass(slots=True, kw_only=True)
class Piece:
    """New tokens of one generation, the stop id among them; the last piece has a finish reason."""

    id: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[Logprob] | None = None
    """One per id, if they were asked for."""
    finish: FinishReason | None = None
    error: str | None = None
    """The generation failed, and only this one; a sentence."""
    first: float | None = None
    """When the first token was there (time.monotonic); set by process.py in whole answers."""

    def add(self, later: "Piece") -> None:
        """What came after this, joined to it."""
        self.ids += later.ids
        self.finish, self.error = later.finish, later.error
        if later.logprobs is not None:
            self.logprobs = (self.logprobs or []) + later.logprobs


class Backend(Protocol):
    """An engine in its own process, driven by one thread: process.py's. Not thread-safe.

    A module serve.engine.<name>_engine has `load(spec: EngineSpec) -> Backend`, which raises
    StartupError with one sentence. Any other exception, here or in a method, ends the process; the
    supervisor fails the generations under way and starts it anew.
    """

    @property
    def info(self) -> EngineInfo: ...

    def add(self, number: int, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Take one generation, or raise ValueError with a sentence: then only that one fails.

        The caller has seen to it that the prompt and max_new_tokens fit into the context, and that
        at most `concurrency` are under way.
        """

    def cancel(self, number: int) -> None:
        """Forget this generation and free its place; no more pieces of it. Unknown: nothing."""

    def step(self) -> list[Piece]:
        """Compute a little (one token for each, or one block of prompt), and give what is new.

        Called again and again while a generation is under way. It may wait a few milliseconds for
        work done in other threads, and never longer than one step takes.
        """

    def close(self) -> None:
        """Give up what runs and free the memory."""


class Session(Protocol):
    """The generations of one request. A context: leaving it cancels what still runs."""

    @property
    def running(self) -> frozenset[int]:
        """Numbers of the generations whose last piece has not been taken."""

    @property
    def first_token(self) -> float | None:
        """When the first token of any of them came in (time.monotonic)."""

    def start(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline: float) -> int:
        """Start one generation; its number. It ends by itself at the deadline (time.monotonic)."""

    def take(self, timeout: float) -> list[Piece]:
        """What is new, at most one piece per generation; empty when `timeout` seconds gave nothing.

        Raises EngineError where the engine has failed.
        """

    def cancel(self, number: int) -> None:
        """End one generation and free its place; no further pieces of it."""

    def __enter__(self) -> "Session": ...

    def __exit__(self, *error: object) -> None: ...


class Engine(Protocol):
    """A loaded model, in whichever process."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def state(self) -> str:
        """Empty when it can take a generation; else a sentence that says why not."""

    @property
    def restarts(self) -> int:
        """How often it had to be started anew."""

    def session(self, *, whole: bool = False) -> Session:
        """With `whole`, a generation gives one piece, at its end: less work for both processes."""

    def close(self) -> None:
        """Cancel what runs and take no more."""


class EngineError(Exception):
    """The engine died or failed under a generation, or is not there; one sentence."""

    def __init__(self, sentence: str, *, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        """Seconds until it is worth asking again; None where the request itself is at fault."""

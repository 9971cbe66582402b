"""transformers' own `generate`, one call per request, in a small pool of threads.

The plain engine: right for every architecture that transformers knows, and no faster than one
stream at a time allows; requests share the weights, not the work. Greedy output is
`model.generate`'s, token for token. Each generation stops itself between two tokens, at its
deadline or when it is closed; whoever reads it is released at the deadline even if a long prompt
is still being read.

It leaves the global seed alone. On CUDA, `generate` itself switches mixture-of-experts kernels on
the shared model while decoding; overlapping requests may differ there in the last bits.
"""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging as transformers_logging

from serve.engine import EngineInfo, EngineSpec, FinishReason, Sampling
from serve.errors import StartupError

EAGER_ONLY = {"gpt_oss"}
"""Architectures whose attention sinks the fused attention of torch does not compute."""
GRACE_SECONDS = 0.25
"""Beyond the deadline, for the token that is being computed."""


class _End:
    """Last in the queue: how it went."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Relay(BaseStreamer):  # type: ignore[misc]  # untyped
    """Passes ids from `generate` to the reader; the first call is the prompt."""

    def __init__(self, out: "queue.SimpleQueue[int | _End]") -> None:
        self._out = out
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            for token in value.tolist():
                self._out.put(token)
        self._prompt_seen = True

    def end(self) -> None:
        """The worker says so itself, also after an error."""


class _Halt(StoppingCriteria):  # type: ignore[misc]  # untyped
    """Stops between two tokens, once closed or past the deadline."""

    def __init__(self, deadline: float, closed: threading.Event) -> None:
        self._deadline = deadline
        self._closed = closed
        self.late = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.late = time.monotonic() >= self._deadline
        done = self.late or self._closed.is_set()
        return torch.full((input_ids.shape[0],), done, dtype=torch.bool, device=input_ids.device)


class TransformersGeneration:
    """One `generate` call under way."""

    def __init__(self, deadline: float, stops: frozenset[int]) -> None:
        self.out: queue.SimpleQueue[int | _End] = queue.SimpleQueue()
        self.closed = threading.Event()
        self.halt = _Halt(deadline, self.closed)
        self._deadline = deadline
        self._stops = stops
        self._last: int | None = None
        self._reason: FinishReason | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        return self._reason

    def __iter__(self) -> "TransformersGeneration":
        return self

    def __next__(self) -> int:
        if self._reason is not None:
            raise StopIteration
        try:
            wait = self._deadline + GRACE_SECONDS - time.monotonic()
            item = self.out.get(timeout=max(wait, 0))
        except queue.Empty:
            self.closed.set()
            self._reason = "deadline"
            raise StopIteration from None
        if not isinstance(item, _End):
            self._last = item
            return item
        if item.error is not None:
            self._reason = "cancelled"
            raise item.error
        self._reason = self._why()
        raise StopIteration

    def close(self) -> None:
        self.closed.set()
        self._reason = self._reason or "cancelled"

    def _why(self) -> FinishReason:
        if self._last in self._stops:
            return "stop"
        if self.halt.late:
            return "deadline"
        return "cancelled" if self.closed.is_set() else "length"


class TransformersEngine:
    """A model in this process."""

    def __init__(self, model: Any, info: EngineInfo, concurrency: int) -> None:
        self._model = model
        self._info = info
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="generate")
        self._open: set[TransformersGeneration] = set()
        self._defaults = _take_sampling_defaults(model)
        self._stops = _stop_ids(model)

    @property
    def info(self) -> EngineInfo:
        return self._info

    def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline: float
    ) -> TransformersGeneration:
        generation = TransformersGeneration(deadline, self._stops | sampling.stop_ids)
        self._open.add(generation)
        self._pool.submit(self._work, generation, list(prompt_ids), self._config(sampling))
        return generation

    def close(self) -> None:
        for generation in list(self._open):
            generation.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(
        self, generation: TransformersGeneration, prompt_ids: list[int], config: GenerationConfig
    ) -> None:
        error: BaseException | None = None
        try:
            if not generation.closed.is_set():
                ids = torch.tensor([prompt_ids], device=self._model.device)
                self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=config,
                    streamer=_Relay(generation.out),
                    stopping_criteria=StoppingCriteriaList([generation.halt]),
                )
        except BaseException as caught:  # raised again in the request's thread
            error = caught
        finally:
            self._open.discard(generation)
            generation.out.put(_End(error))

    def _config(self, sampling: Sampling) -> GenerationConfig:
        """A fresh one per request; the model's is never written to after loading."""
        stops = sorted(self._stops | sampling.stop_ids)
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.do_sample,
            eos_token_id=stops or None,
            pad_token_id=stops[0] if stops else 0,
        )
        if sampling.do_sample:
            config.temperature = sampling.temperature or self._defaults["temperature"] or 1.0
            config.top_p = sampling.top_p or self._defaults["top_p"] or 1.0
            config.top_k = self._defaults["top_k"] or 0  # 0 is off; unset would mean 50
        return config


def load(spec: EngineSpec) -> TransformersEngine:
    """Load safetensors weights from a folder; StartupError where they do not make a whole model."""
    started = time.monotonic()
    transformers_logging.disable_progress_bar()
    config = _read_config(spec)
    options: dict[str, Any] = {}
    if config.model_type in EAGER_ONLY:
        options["attn_implementation"] = "eager"
    if spec.device != "cpu":
        options["device_map"] = {"": spec.device}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            spec.root,
            config=config,
            dtype=getattr(torch, spec.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise StartupError(f"the model in {spec.root} does not load: {_first(error)}") from error
    for what in ("missing_keys", "mismatched_keys"):
        if report[what]:
            names = ", ".join(sorted(str(name) for name in report[what])[:3])
            count = len(report[what])
            raise StartupError(f"{spec.root} is not a whole model: {count} {what}, first {names}.")
    model.eval()
    attention = str(model.config._attn_implementation)
    info = EngineInfo(load_seconds=time.monotonic() - started, attention=attention)
    return TransformersEngine(model, info, spec.concurrency)


def _read_config(spec: EngineSpec) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(spec.root, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise StartupError(f"{spec.root / 'config.json'} is not usable: {_first(error)}") from error


def _take_sampling_defaults(model: Any) -> dict[str, Any]:
    """The model's own sampling numbers, taken out of its config: greedy requests would warn."""
    config = model.generation_config
    taken = {name: getattr(config, name, None) for name in ("temperature", "top_p", "top_k")}
    for name in (*taken, "do_sample", "max_length", "max_new_tokens"):
        setattr(config, name, None)
    return taken


def _stop_ids(model: Any) -> frozenset[int]:
    """What ends an answer: generation_config.json's ids, else config.json's."""
    found = model.generation_config.eos_token_id
    if found is None:
        found = model.config.get_text_config().eos_token_id
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else found)


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

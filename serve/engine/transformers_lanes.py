"""How steps are computed: packed by transformers' continuous batching, or one generation at a time.

transformers schedules, packs and keeps the paged cache; Paged steps its batch processor by hand,
without its thread, so that an exception comes out of `step`, and picks the tokens itself, from the
raw logits: greedy and sampled generations share every step. Methods of transformers that start with
an underscore are its own affair; this module alone uses them, and the trial at load notices where a
new version changes them.
"""

import math
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from serve.engine import EngineSpec, Piece, Sampling
from serve.engine.transformers_picking import Picker, pick

BY_REQUEST = "by_request"
PAGE_TOKENS = 32
"""Prompts share what they have in common in whole pages."""


@dataclass(slots=True)
class Run:
    """One generation."""

    number: int
    prompt: list[int]
    sampling: Sampling
    stops: frozenset[int]
    picker: Picker
    made: int = 0
    last: int = 0

    @property
    def most(self) -> int:
        return len(self.prompt) + self.sampling.max_new_tokens


class Lane(Protocol):
    """How steps are computed. The backend starts no more than `capacity` of `cost` at a time."""

    capacity: int

    def cost(self, tokens: int) -> int: ...

    def start(self, run: Run) -> None: ...

    def end(self, run: Run) -> None:
        """Free its place, whether or not it is finished."""

    def switch(self, adapter: str | None) -> None:
        """Step only the generations of this adapter from now on."""

    def step(self) -> list[tuple[Run, Piece]]: ...

    def close(self) -> None: ...


class Paged:
    """transformers' continuous batching, stepped by hand."""

    def __init__(self, model: Any, spec: EngineSpec, tokens: int, step_tokens: int) -> None:
        config = ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=math.ceil(tokens / PAGE_TOKENS),
            max_batch_tokens=step_tokens,
            max_memory_percent=1.0,  # sized already
            max_requests_per_batch=spec.concurrency,
            allow_block_sharing=not spec.adapters,  # keys and values differ by adapter
            use_async_batching=False,
            use_cuda_graph=False,  # tokens are picked on the host's side of each step
            safety_margin=0.0,  # whatever has started fits
            auto_switch_to_flash=False,  # would ask the hub for kernels
        )
        plain = GenerationConfig(do_sample=False, eos_token_id=-1)
        self._model = model
        self._manager = model.init_continuous_batching(plain, config)
        self._work = self._manager._create_batch_processor()
        if model.device.type == "cpu":
            _attend_by_request(model)
        self._work.model_runner._sample = self._sample
        self._cache = self._work.cache
        self.capacity = int(self._cache.num_sectors)
        self._runs: dict[str, Run] = {}
        self._adapter: str | None = None
        self._unsent: dict[str | None, list[Run]] = {}
        self._parked: dict[str | None, tuple[dict[str, Any], dict[str, Any], deque[str]]] = {}
        self._new: list[tuple[Run, Piece]] = []
        self._idle = False

    def cost(self, tokens: int) -> int:
        """In sectors, the cache's unit; as for a request that has none yet."""
        return sum(
            math.ceil(kind.needs_new_blocks("", 0, tokens) / kind.blocks_per_sector)
            for kind in self._cache.cache_allocators.values()
        )

    def start(self, run: Run) -> None:
        if run.sampling.adapter != self._adapter:
            self._unsent.setdefault(run.sampling.adapter, []).append(run)
            return
        self._runs[str(run.number)] = run
        if self._cache.pool.num_free_sectors < self.cost(run.most):
            self._cache.evict_cached_blocks()  # prefixes of former requests
            self._cache.pool.try_to_free_sectors()
        self._manager.add_request(
            run.prompt,
            request_id=str(run.number),
            max_new_tokens=run.sampling.max_new_tokens,
            eos_token_id=sorted(run.stops),
        )

    def end(self, run: Run) -> None:
        name = str(run.number)
        unsent = self._unsent.get(run.sampling.adapter, [])
        if run in unsent:
            unsent.remove(run)
        elif self._runs.pop(name, None) is None:
            return
        elif run.sampling.adapter == self._adapter:
            self._manager.cancel_request(name)
        else:
            active, waiting, order = self._parked[run.sampling.adapter]
            active.pop(name, None)
            if waiting.pop(name, None) is not None:
                order.remove(name)
            self._cache.free_blocks(name)

    def switch(self, adapter: str | None) -> None:
        scheduler = self._work.scheduler
        self._work._update_tp_group_state()  # takes in what was added and cancelled
        scheduler.clear_cancelled_requests()
        self._parked[self._adapter] = (
            scheduler.active_requests,
            scheduler.waiting_requests,
            scheduler.waiting_requests_order,
        )
        (
            scheduler.active_requests,
            scheduler.waiting_requests,
            scheduler.waiting_requests_order,
        ) = self._parked.pop(adapter, ({}, {}, deque()))
        self._adapter = adapter
        for run in self._unsent.pop(adapter, []):
            self.start(run)

    def step(self) -> list[tuple[Run, Piece]]:
        self._new = []
        if not self._work.prepare_next_batch():
            if self._idle and self._runs:
                raise RuntimeError(f"{len(self._runs)} generations wait and none can be scheduled")
            self._idle = True
            return []
        self._idle = False
        self._work._generation_step(self._model)
        self._work.update_batch()
        finished = self._manager.output_router.output_queue
        while not finished.empty():  # known already
            finished.get_nowait()
        for run, piece in self._new:
            if piece.finish is not None and piece.error is None:
                del self._runs[str(run.number)]
        return self._new

    def _sample(self, scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        """In place of greedy or sampled for all: called within each step, with the raw logits."""
        batch = self._work.inputs_and_outputs.requests_in_batch
        runs = [self._runs[one.state.request_id] for one in batch if one.has_new_token]
        self._new = advance(runs, scores[0, : len(runs)])  # prompts not read to the end have no row
        ids = [piece.ids[0] if piece.ids else 0 for _, piece in self._new]
        output_ids[0, : len(ids)] = torch.tensor(ids, dtype=output_ids.dtype)

    def close(self) -> None:
        self._manager.destroy()


class Serial:
    """One forward pass per generation and token, each over its own cache."""

    def __init__(self, model: Any, capacity: int) -> None:
        self._model = model
        self.capacity = capacity
        self._adapter: str | None = None
        self._runs: dict[int, Run] = {}
        self._caches: dict[int, Any] = {}

    def cost(self, tokens: int) -> int:
        return tokens

    def start(self, run: Run) -> None:
        self._runs[run.number] = run

    def end(self, run: Run) -> None:
        self._runs.pop(run.number, None)
        self._caches.pop(run.number, None)

    def switch(self, adapter: str | None) -> None:
        self._adapter = adapter

    def step(self) -> list[tuple[Run, Piece]]:
        new = []
        read = False  # one prompt per step, so that the others go on
        for run in [run for run in self._runs.values() if run.sampling.adapter == self._adapter]:
            cache = self._caches.get(run.number)
            if cache is None and read:
                continue
            read = read or cache is None
            ids = run.prompt if cache is None else [run.last]
            logits, self._caches[run.number] = forward(self._model, ids, cache)
            new += advance([run], logits[None])
        for run, piece in new:
            if piece.finish is not None:
                self.end(run)
        return new

    def close(self) -> None:
        self._caches.clear()


def advance(runs: Sequence[Run], rows: torch.Tensor) -> list[tuple[Run, Piece]]:
    """The next token of each, from its row of logits."""
    new = []
    for run, picked in zip(runs, pick([run.picker for run in runs], rows), strict=True):
        if picked is None:
            error = "the model's numbers overflowed; serve it in bfloat16 or float32."
            new.append((run, Piece(id=run.number, finish="cancelled", error=error)))
            continue
        run.last, logprob = picked
        run.made += 1
        piece = Piece(id=run.number, ids=[run.last])
        if logprob is not None:
            piece.logprobs = [logprob]
        if run.last in run.stops:
            piece.finish = "stop"
        elif run.made == run.sampling.max_new_tokens:
            piece.finish = "length"
        new.append((run, piece))
    return new


def _attend_by_request(model: Any) -> None:
    """Give the packed row's attention to the model's usual function, one request after another.

    As one matrix, every token is multiplied with the cached tokens of all requests and then masked:
    at 64 requests that takes most of a step on a CPU.
    """
    packed = str(model.config._attn_implementation)
    if packed == "paged|eager":
        usual = sys.modules[type(model).__module__].eager_attention_forward
    else:
        usual = ALL_ATTENTION_FUNCTIONS[packed]

    def attend(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor,
        cache: Any,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        key, value = cache.update(key, value, module.layer_idx, options)
        until_q, until_k = options["cu_seq_lens_q"].tolist(), options["cu_seq_lens_k"].tolist()
        parts = []
        for q, k in zip(pairwise(until_q), pairwise(until_k), strict=True):
            parts.append(
                usual(
                    module,
                    query[:, :, slice(*q)],
                    key[:, :, slice(*k)],
                    value[:, :, slice(*k)],
                    mask[:, :, slice(*q), slice(*k)] if q[1] - q[0] > 1 else None,
                    **options,
                )[0]
            )
        return torch.cat(parts, dim=1), None

    AttentionInterface.register(BY_REQUEST, attend)
    model.set_attn_implementation(BY_REQUEST)


@torch.no_grad()
def forward(model: Any, ids: Sequence[int], cache: Any) -> tuple[torch.Tensor, Any]:
    """The fp32 logits after the last of these tokens, and the cache with them in it."""
    options = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
    tokens = torch.tensor([list(ids)], device=model.device)
    out = model(input_ids=tokens, past_key_values=cache, use_cache=True, **options)
    return out.logits[0, -1].float(), out.past_key_values

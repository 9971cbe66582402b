"""transformers' own continuous batching behind the Backend contract: reference, and fallback.

All generations under way are packed into one row per step, over a paged KV cache; each picks its
tokens by its own settings. Greedy is argmax, as in `model.generate`.

- Memory: a generation starts once the cache can hold its prompt and all of max_new_tokens; until
  then it waits here, in order. So the cache cannot run out under one that has started.
- LoRA: a packed row computes with one adapter. Where several are asked for they take turns of
  TURN_STEPS steps; a generation keeps its cache while it waits for its turn.
- An architecture that continuous batching refuses, or computes wrongly in a short trial at load,
  is run one request at a time over its ordinary cache; EngineInfo.attention says so.
- Penalties for presence and frequency count generated tokens, as OpenAI's; logprobs are the
  model's own, before temperature and penalties.

It knows no deadlines and no text, and has no grammar for JSON schemas. CUDA graphs are off.
"""

import logging
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.generation.continuous_batching.utils import (
    find_head_dim,
    find_num_key_value_heads,
)
from transformers.utils import logging as transformers_logging

from serve.engine import EngineInfo, EngineSpec, Feature, Piece, Sampling, memory
from serve.engine.transformers_lanes import Lane, Paged, Run, Serial, forward
from serve.engine.transformers_picking import Defaults, Picker
from serve.errors import StartupError

log = logging.getLogger(__name__)

FEATURES: frozenset[Feature] = frozenset(get_args(Feature)) - {"json_schema", "adapters"}
EAGER_ONLY = {"gpt_oss"}
"""Architectures whose attention sinks the fused attention of torch does not compute."""
STEP_TOKENS = {"sdpa": 512, "eager": 256}
"""Most tokens in one step: bounds how long a long prompt holds up the others, and for eager
attention the memory of its weights, one for each head, token and cached token."""
MEMORY_SHARE = 0.5
"""Of the memory that is free after loading, for the KV cache and what is computed beside it."""
TURN_STEPS = 16
TRIAL = ([3, 5, 7, 11, 13, 17, 19], [4, 6, 8])
TRIAL_TOKENS = 2
TRIAL_TOLERANCE = 0.5
"""In log probability. Rounding in bf16 stays well below it; a wrong cache is far beyond."""


class TransformersBackend:
    """Generations in the order they came: waiting for memory, then under way in the lane."""

    def __init__(
        self,
        model: Any,
        lane: Lane,
        use: Callable[[str | None], None],
        spec: EngineSpec,
        info: EngineInfo,
    ) -> None:
        self.info = info
        self._device = model.device
        self._lane = lane
        self._defaults = _take_sampling_defaults(model)
        self._stops = _stop_ids(model)
        self._vocabulary = int(model.get_input_embeddings().weight.shape[0])
        self._context = spec.context
        self._use = use
        self._adapters = [None, *spec.adapters]
        self._adapter: str | None = None
        self._turn = 0
        self._waiting: deque[Run] = deque()
        self._running: dict[int, Run] = {}

    def add(self, number: int, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        picker = Picker(sampling, self._defaults, prompt_ids, self._device)
        run = Run(number, list(prompt_ids), sampling, self._stops | sampling.stop_ids, picker)
        if not run.prompt or not all(0 <= token < self._vocabulary for token in run.prompt):
            raise ValueError(f"the prompt must be token ids from 0 to {self._vocabulary - 1}.")
        if sampling.max_new_tokens < 1 or run.most > self._context:
            raise ValueError(
                f"the prompt has {len(run.prompt)} tokens and the answer may have "
                f"{sampling.max_new_tokens}; both together must fit into {self._context}."
            )
        if self._lane.cost(run.most) > self._lane.capacity:
            raise ValueError(f"the KV cache has no room for {run.most} tokens; ask for fewer.")
        if sampling.adapter not in self._adapters:
            raise ValueError(f'there is no adapter "{sampling.adapter}".')
        if sampling.json_schema is not None:
            raise ValueError("this engine cannot keep an answer to a JSON schema.")
        self._waiting.append(run)

    def cancel(self, number: int) -> None:
        self._waiting = deque(run for run in self._waiting if run.number != number)
        run = self._running.pop(number, None)
        if run is not None:
            self._lane.end(run)

    def step(self) -> list[Piece]:
        taken = sum(self._lane.cost(run.most) for run in self._running.values())
        while self._waiting:
            taken += self._lane.cost(self._waiting[0].most)
            if taken > self._lane.capacity:
                break
            run = self._waiting.popleft()
            self._running[run.number] = run
            self._lane.start(run)
        if not self._running:
            return []
        self._take_turns()
        pieces = []
        for run, piece in self._lane.step():
            pieces.append(piece)
            if piece.finish is not None:
                self._running.pop(run.number)
                if piece.error is not None:
                    self._lane.end(run)
        return pieces

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()
        self._lane.close()

    def _take_turns(self) -> None:
        asked = {run.sampling.adapter for run in self._running.values()}
        self._turn += 1
        if asked == {self._adapter} or (self._adapter in asked and self._turn <= TURN_STEPS):
            return
        after = self._adapters.index(self._adapter) + 1
        order = self._adapters[after:] + self._adapters[:after]
        self._adapter = next(name for name in order if name in asked)
        self._turn = 1
        self._lane.switch(self._adapter)
        self._use(self._adapter)


def load(spec: EngineSpec) -> TransformersBackend:
    """Load safetensors weights from a folder; StartupError where they do not make a whole model."""
    started = time.monotonic()
    model = _load_model(spec)
    use = _load_adapters(model, spec)
    use(None)
    lane, attention = _choose_lane(model, spec)
    info = EngineInfo(
        version=f"transformers {transformers.__version__}",
        load_seconds=time.monotonic() - started,
        attention=attention,
        features=FEATURES | ({"adapters"} if spec.adapters else set()),
    )
    return TransformersBackend(model, lane, use, spec, info)


def _load_model(spec: EngineSpec) -> Any:
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
    return model.eval()


def _read_config(spec: EngineSpec) -> Any:
    try:
        return AutoConfig.from_pretrained(spec.root, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise StartupError(f"{spec.root / 'config.json'} is not usable: {_first(error)}") from error


def _load_adapters(model: Any, spec: EngineSpec) -> Callable[[str | None], None]:
    """Put the LoRA layers into the model; what is given back chooses one of them, or none."""
    if not spec.adapters:
        return lambda _: None
    try:
        from peft import PeftModel
    except ImportError as error:
        raise StartupError("LoRA adapters need the package peft; install it.") from error
    wrapped: Any = None
    names = {name: f"adapter{i}" for i, name in enumerate(spec.adapters)}  # torch forbids some
    for name, folder in spec.adapters.items():
        try:
            if wrapped is None:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", "Found missing adapter keys")
                    wrapped = PeftModel.from_pretrained(model, folder, names[name])
            else:
                missing = wrapped.load_adapter(folder, names[name]).missing_keys
                if missing:
                    raise ValueError(f"Found missing adapter keys: {missing}")
        except (OSError, ValueError, RuntimeError, KeyError, UserWarning) as error:
            sentence = f"the adapter in {folder} does not load: {_first(error)[:300]}"
            raise StartupError(sentence) from error
    wrapped.eval()

    def use(name: str | None) -> None:
        if name is None:
            wrapped.base_model.disable_adapter_layers()
        else:
            wrapped.base_model.enable_adapter_layers()
            wrapped.set_adapter(names[name], inference_mode=True)

    return use


def _choose_lane(model: Any, spec: EngineSpec) -> tuple[Lane, str]:
    """Continuous batching where it computes what the model does, and one by one elsewhere."""
    attention = str(model.config._attn_implementation)
    expected = [_alone(model, prompt) for prompt in TRIAL]
    step_tokens = max(STEP_TOKENS.get(attention, 512), spec.concurrency)
    try:
        tokens = _cache_tokens(model, spec, attention, step_tokens)
        lane = Paged(model, spec, tokens, step_tokens)
        why = _differs(lane, expected, model.device)
    except StartupError:
        raise
    except MemoryError as error:
        raise StartupError(f"the KV cache does not fit into memory: {_first(error)}") from error
    except Exception as error:  # any: the architecture is one that it was not made for
        why = _first(error)
    if why is None:
        return lane, f"paged {attention}"
    log.warning(
        "transformers' continuous batching cannot run %s (%s): requests are computed one at a time",
        model.config.model_type,
        why,
    )
    model.set_attn_implementation(attention)
    serial = Serial(model, spec.concurrency * spec.context)
    why = _differs(serial, expected, model.device)
    if why is not None:
        raise StartupError(f"transformers cannot serve {model.config.model_type}: {why}.")
    return serial, f"{attention}, one request at a time"


def _cache_tokens(model: Any, spec: EngineSpec, attention: str, step_tokens: int) -> int:
    """As many tokens as all requests can have together, or as the free memory holds."""
    config = model.config.get_text_config()
    number = model.dtype.itemsize
    kv_heads, head = find_num_key_value_heads(config), find_head_dim(config)
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    kinds = list(getattr(config, "layer_types", None) or ["one"] * layers)
    spread = layers / min(kinds.count(kind) for kind in kinds)  # tokens, if one kind had all memory
    weights = 5 * heads * step_tokens * number if attention == "eager" else 0
    packed = model.device.type != "cpu"  # attention over all requests as one matrix
    fixed = 0 if packed else weights * spec.context
    each = number * (
        2 * layers * kv_heads * head  # the cache
        + (2 * heads + kv_heads) * head  # one layer's, read back and repeated for all heads
        + len(set(kinds)) * spread * step_tokens  # masks
    ) + (weights if packed else 0)
    free = _free_memory(model.device)
    wanted = spec.concurrency * spec.context
    tokens = min(wanted, int((free * MEMORY_SHARE - fixed) / each))
    if tokens < spec.context:
        raise StartupError(
            f"{free / 2**30:.1f} GiB are free and the KV cache may take half of them: room for "
            f"{max(tokens, 0)} tokens, less than one request of {spec.context}; lower the context."
        )
    limit = "for every request in full" if tokens == wanted else f"half of {free / 2**30:.1f} GiB"
    log.info("KV cache for %d tokens (%s), %.1f KiB each", tokens, limit, each / 2**10)
    return tokens


def _free_memory(device: torch.device) -> int:
    """In bytes: of the GPU, or of the machine and the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory.free()


def _alone(model: Any, prompt: list[int]) -> list[tuple[int, float]]:
    """The model's own first tokens, computed without any cache, with their log probabilities."""
    ids = list(prompt)
    chosen = []
    for _ in range(TRIAL_TOKENS):
        values = forward(model, ids, None)[0].log_softmax(dim=-1)
        ids.append(int(values.argmax()))
        chosen.append((ids[-1], float(values[ids[-1]])))
    return chosen


def _differs(lane: Lane, expected: list[list[tuple[int, float]]], device: Any) -> str | None:
    """Generate the same in this lane, side by side; None where it agrees, else what does not."""
    defaults = Defaults(temperature=None, top_p=None, top_k=None)
    sampling = Sampling(max_new_tokens=TRIAL_TOKENS, logprobs=0)
    for number, prompt in enumerate(TRIAL):
        picker = Picker(sampling, defaults, prompt, device)
        lane.start(Run(number, prompt, sampling, frozenset(), picker))
    got: dict[int, list[tuple[int, float]]] = {number: [] for number in range(len(TRIAL))}
    while any(len(tokens) < TRIAL_TOKENS for tokens in got.values()):
        for run, piece in lane.step():
            if piece.logprobs is None:
                return "its numbers overflow"
            got[run.number].append((piece.ids[0], piece.logprobs[0].logprob))
    for number, tokens in enumerate(expected):
        for (right, value), (token, logprob) in zip(tokens, got[number], strict=True):
            if not abs(value - logprob) < TRIAL_TOLERANCE:
                return "its tokens are not the model's"
            if token != right:  # as likely as the other; what follows cannot be compared
                break
    return None


def _take_sampling_defaults(model: Any) -> Defaults:
    """The model's own sampling numbers."""
    config = model.generation_config
    return Defaults(temperature=config.temperature, top_p=config.top_p, top_k=config.top_k)


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

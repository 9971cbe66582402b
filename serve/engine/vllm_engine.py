"""vLLM: paged KV memory, continuous batching and, on a GPU, fused kernels and CUDA graphs.

    backend = load(spec)            in the engine process, driven by serve/engine/process.py

It runs under an interpreter of its own, since vLLM pins torch and transformers, and in that one
process: scheduler and model step together, on the thread that calls step(). The tokenizer is loaded
for JSON schemas only. What vLLM would take from generation_config.json by itself is decided here
instead: sampling numbers that a request leaves open, and the ids that end an answer.

It neither quantises nor spreads a model over several GPUs. Log probabilities are the model's own,
before temperature and penalties. vLLM takes temperatures from 0.01 to 2 and samples at 0.01 below.
"""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from serve.engine import EngineInfo, EngineSpec, Feature, FinishReason, Logprob, Piece, Sampling
from serve.errors import StartupError

GPU_SHARE = 0.9
"""Of the GPU's memory, for weights, KV memory and graphs together."""
CPU_SHARE = 0.5
"""Most of the free main memory that the KV memory takes, on a CPU."""
BLOCK = 128
"""Tokens of one KV block on a CPU, which vLLM counts each generation's memory in."""
MAX_LOGPROBS = 20
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM has memory layouts for."""
IDLE_SECONDS = 0.001
"""Wait after a step that gave nothing: a JSON schema may still be in preparation."""
FEATURES: frozenset[Feature] = frozenset(get_args(Feature))
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
"""Read by vLLM when it is imported."""
REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class VllmBackend:
    """A loaded model; see Backend."""

    def __init__(self, engine: Any, spec: EngineSpec, started: float) -> None:
        import vllm
        from vllm.lora.request import LoRARequest

        self._engine = engine
        self._defaults = _read_json(spec.root / "generation_config.json")
        config = _read_json(spec.root / "config.json")
        self._stops = _stop_ids(self._defaults) or _stop_ids(config)
        self._adapters = {
            name: LoRARequest(name, number, str(path))
            for number, (name, path) in enumerate(spec.adapters.items(), start=1)
        }
        self._tops: dict[int, int] = {}
        """How many of the likeliest tokens a generation under way asked for."""
        self._info = EngineInfo(
            version=f"vllm {vllm.__version__}",
            load_seconds=time.monotonic() - started,
            attention=_attention(engine),
            features=FEATURES,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def add(self, number: int, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        from vllm.exceptions import VLLMValidationError
        from vllm.inputs import TokensPrompt

        adapter = None
        if sampling.adapter is not None:
            adapter = self._adapters.get(sampling.adapter)
            if adapter is None:
                raise ValueError(f"There is no adapter {sampling.adapter!r} in this engine.")
        prompt = TokensPrompt(prompt_token_ids=list(prompt_ids))
        try:
            params = self._params(sampling)
            self._engine.add_request(str(number), prompt, params, lora_request=adapter)
        except (ValueError, VLLMValidationError) as error:
            raise ValueError(str(error.args[0])) from error  # without vLLM's own field names
        self._tops[number] = sampling.logprobs or 0

    def cancel(self, number: int) -> None:
        self._tops.pop(number, None)
        self._engine.abort_request([str(number)])

    def step(self) -> list[Piece]:
        outputs = self._engine.step()
        if not outputs:
            time.sleep(IDLE_SECONDS)
        pieces = [_piece(output, self._tops[int(output.request_id)]) for output in outputs]
        for piece in pieces:
            if piece.finish is not None:
                del self._tops[piece.id]
        return pieces

    def close(self) -> None:
        self._engine.engine_core.shutdown()

    def _params(self, sampling: Sampling) -> Any:
        """vLLM's own form. Neutral values are its defaults, except for the temperature."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        given: dict[str, Any] = {
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logprobs": sampling.logprobs,
        }
        if sampling.do_sample:
            for name in ("temperature", "top_p", "top_k"):
                asked = getattr(sampling, name)
                given[name] = self._defaults.get(name) if asked is None else asked
            given["min_p"] = sampling.min_p
            if sampling.seed is not None:
                given["seed"] = sampling.seed % 2**63  # -1 would mean none
        else:
            given["temperature"] = 0.0
        if sampling.json_schema is not None:
            given["structured_outputs"] = StructuredOutputsParams(json=sampling.json_schema)
        return SamplingParams(
            **{name: value for name, value in given.items() if value is not None},
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=sorted(self._stops | sampling.stop_ids),
            ignore_eos=True,  # or the tokenizer's would end answers too
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )


def load(spec: EngineSpec) -> VllmBackend:
    """Load safetensors weights from a folder; StartupError where they do not make a whole model."""
    started = time.monotonic()
    os.environ.update(ENVIRONMENT)
    if spec.cache is not None:  # kernels that are compiled once
        os.environ.setdefault("VLLM_CACHE_ROOT", str(spec.cache / "vllm"))
    logging.getLogger("vllm").setLevel(logging.WARNING)
    try:
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise StartupError(f"vLLM does not import here: {_first(error)}") from error
    if current_platform.device_type != spec.device:
        raise StartupError(
            f"this vLLM computes on {current_platform.device_type or 'nothing here'} "
            f"and not on {spec.device}; install the build for {spec.device}."
        )
    try:
        engine = LLMEngine.from_engine_args(_arguments(spec))
    except StartupError:
        raise
    except Exception as error:  # vLLM's own, torch's, pydantic's and safetensors' have no one base
        raise StartupError(f"the model in {spec.root} does not load: {_first(error)}") from error
    return VllmBackend(engine, spec, started)


def _arguments(spec: EngineSpec) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    arguments = EngineArgs(
        model=str(spec.root),
        tokenizer_mode="hf",
        config_format="hf",
        load_format="safetensors",
        trust_remote_code=False,
        dtype=spec.dtype,
        max_model_len=spec.context,
        max_num_seqs=spec.concurrency,
        gpu_memory_utilization=GPU_SHARE,
        max_logprobs=MAX_LOGPROBS,
        disable_log_stats=True,
        enable_lora=bool(spec.adapters),
    )
    if spec.adapters:
        # on a CPU, rows without an adapter get what the last place holds, so that one stays empty
        arguments.max_loras = len(spec.adapters) + 1
        arguments.max_lora_rank = _rank(spec.adapters)
    if spec.device == "cpu":
        arguments.enforce_eager = True  # compiling needs a C++ compiler and takes a minute
        model = arguments.create_model_config()
        if spec.adapters and model.get_num_experts():
            raise StartupError(
                "on a CPU, vLLM puts no adapters on a mixture of experts; merge the adapter into "
                "its base or choose another engine."
            )
        arguments.kv_cache_memory_bytes = _kv_bytes(model, spec)
    return arguments


def _kv_bytes(model: Any, spec: EngineSpec) -> int:
    """KV memory for every generation at its longest, or what there is of main memory."""
    from vllm.utils.cpu_resource_utils import get_memory_node_info

    token = 2 * model.get_total_num_kv_heads() * model.get_head_size() * model.dtype.itemsize
    tokens = spec.concurrency * (spec.context + BLOCK)
    wanted = tokens * token * model.get_total_num_hidden_layers()
    return min(int(wanted), int(get_memory_node_info().available_memory * CPU_SHARE))


def _rank(adapters: Mapping[str, Path]) -> Any:
    """The smallest of vLLM's that all of them fit in."""
    largest = 0
    for name, path in adapters.items():
        rank = _read_json(path / "adapter_config.json").get("r")
        if not isinstance(rank, int):
            raise StartupError(
                f"the adapter {name} in {path} has no adapter_config.json with a rank."
            )
        largest = max(largest, rank)
    for rank in LORA_RANKS:
        if rank >= largest:
            return rank
    raise StartupError(f"vLLM takes adapters up to rank {LORA_RANKS[-1]}, and one has {largest}.")


def _attention(engine: Any) -> str:
    layers = engine.vllm_config.compilation_config.static_forward_context.values()
    names = {
        layer.get_attn_backend().get_name()
        for layer in layers
        if hasattr(layer, "get_attn_backend")
    }
    return ", ".join(sorted(names))


def _piece(output: Any, tops: int) -> Piece:
    """One request's new tokens, from vLLM's RequestOutput."""
    completion = output.outputs[0]
    piece = Piece(id=int(output.request_id), ids=list(completion.token_ids))
    if completion.logprobs is not None:
        pairs = zip(piece.ids, completion.logprobs, strict=True)
        piece.logprobs = [_logprob(chosen, among, tops) for chosen, among in pairs]
    if completion.finish_reason is not None:
        piece.finish = REASONS.get(completion.finish_reason, "cancelled")
        if completion.finish_reason == "error":
            piece.error = "vLLM could not go on with this answer; its log tells why."
    return piece


def _logprob(chosen: int, among: Mapping[int, Any], tops: int) -> Logprob:
    """Out of vLLM's one mapping: the chosen token, and those of rank 1 to `tops`."""
    ranked = sorted((value.rank, token) for token, value in among.items())
    top = [token for _, token in ranked[:tops]]
    return Logprob(
        logprob=among[chosen].logprob,
        top=tuple((token, among[token].logprob) for token in top),
    )


def _stop_ids(config: Mapping[str, Any]) -> frozenset[int]:
    found = config.get("eos_token_id")
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else found)


def _read_json(path: Path) -> dict[str, Any]:
    """An object, or an empty one where there is no such file."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

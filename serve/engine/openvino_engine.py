"""OpenVINO GenAI's continuous batching: the fastest of the engines on CPUs, and for CPUs only.

The first load converts the model (openvino_convert.py, in a process of its own) into a folder below
EngineSpec.cache, whose name is a fingerprint of weights, precision and versions; later loads read
that, without torch. A new conversion of the same folder takes the place of the old.

Keys and values have the precision of the weights, not OpenVINO's usual 8 bits. GenAI can neither
report the likeliest tokens beside the chosen one nor mix LoRA adapters in one batch, and its
structured output wants a tokenizer of its own, so `top_logprobs`, `adapters` and `json_schema` are
not among the features.
"""

import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import openvino as ov
import openvino_genai as genai
from openvino_genai.py_openvino_genai import GenerationFinishReason, GenerationStatus

from serve.engine import (
    EngineInfo,
    EngineSpec,
    Feature,
    FinishReason,
    Logprob,
    Piece,
    Sampling,
    memory,
)
from serve.errors import StartupError

REMEDY = "set SERVE_ENGINE=transformers"
CONVERTER = Path(__file__).with_name("openvino_convert.py")
STARTUP_ERROR = 3
"""The converter's exit code where its last line is a sentence for the user."""
SOURCE = "source.txt"
"""In a conversion's folder: what it was made from."""
PRECISIONS = {"float32": ("f32", 4), "bfloat16": ("bf16", 2)}
BLOCK = 32
"""Tokens in a block of OpenVINO's cache on CPUs."""
CACHE_SHARE = 0.5
"""Of the memory that the weights leave; the rest is for activations and the other processes."""
STEP_TOKENS = 256
"""Most tokens in one step; a longer one would hold up every stream under way. At 128, 16 callers
had a tenth fewer tokens/s, and their first token no sooner."""
FEATURES: frozenset[Feature] = frozenset(get_args(Feature)) - {
    "top_logprobs",
    "json_schema",
    "adapters",
}
REASONS: dict[Any, FinishReason] = {
    GenerationFinishReason.STOP: "stop",
    GenerationFinishReason.LENGTH: "length",
}

log = logging.getLogger("serve.engine")


class OpenVINOBackend:
    """One pipeline and the generations under way in it."""

    def __init__(self, pipeline: Any, info: EngineInfo, model: "Model") -> None:
        self._pipeline = pipeline
        self._info = info
        self._model = model
        self._running: dict[int, Any] = {}
        self._with_logprobs: set[int] = set()

    @property
    def info(self) -> EngineInfo:
        return self._info

    def add(self, number: int, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        ids = np.array([prompt_ids], dtype=np.int64)
        if ids.size == 0:
            raise ValueError("the prompt is empty.")
        if ids.min() < 0 or ids.max() >= self._model.vocabulary:
            raise ValueError(f"the prompt has ids outside of 0 to {self._model.vocabulary - 1}.")
        config = self._model.generation_config(sampling)
        try:
            self._running[number] = self._pipeline.add_request(number, ov.Tensor(ids), config)
        except RuntimeError as error:  # its own validation
            raise ValueError(f"OpenVINO refuses this request: {_last(str(error))}") from error
        if sampling.logprobs is not None:
            self._with_logprobs.add(number)

    def cancel(self, number: int) -> None:
        handle = self._running.pop(number, None)
        self._with_logprobs.discard(number)
        if handle is not None:
            handle.cancel()
            if not self._running:
                self._pipeline.step()  # frees its blocks; else the next step does

    def step(self) -> list[Piece]:
        self._pipeline.step()
        pieces = [self._read(number, handle) for number, handle in self._running.items()]
        found = [piece for piece in pieces if piece is not None]
        for piece in found:
            if piece.finish is not None or piece.error is not None:
                del self._running[piece.id]
                self._with_logprobs.discard(piece.id)
        return found

    def close(self) -> None:
        for number in list(self._running):
            self.cancel(number)
        del self._pipeline

    def _read(self, number: int, handle: Any) -> Piece | None:
        piece = Piece(id=number, logprobs=[] if number in self._with_logprobs else None)
        while handle.can_read():
            for output in handle.read().values():
                piece.ids += output.generated_ids
                piece.finish = REASONS.get(output.finish_reason)
                if piece.logprobs is not None:
                    piece.logprobs += [Logprob(logprob=p) for p in output.generated_log_probs]
        if piece.finish is None and handle.get_status() == GenerationStatus.IGNORED:
            piece.error = "the cache for keys and values is full; ask again, or for less at a time."
        return piece if piece.ids or piece.finish or piece.error else None


class Model:
    """What the model's own files say about sampling, and its sizes."""

    def __init__(self, root: Path, converted: Path) -> None:
        facts = json.loads((converted / "facts.json").read_text())
        self.vocabulary: int = facts["vocabulary"]
        self.longest_context: int | None = facts["longest_context"]
        self.kv_values_per_token: int = facts["kv_values_per_token"]
        self._own = _read_json(root / "generation_config.json")
        stops = self._own.get("eos_token_id", _read_json(root / "config.json").get("eos_token_id"))
        self._stops = {stops} if isinstance(stops, int) else set(stops or ())

    def generation_config(self, sampling: Sampling) -> Any:
        """Neutral wherever neither request nor model says otherwise."""
        # GenAI insists on an end id, where there is none this one never comes
        stops = self._stops | sampling.stop_ids or {self.vocabulary}
        config = genai.GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.do_sample,
            eos_token_id=min(stops),
            stop_token_ids=stops,
            repetition_penalty=_first_of(sampling.repetition_penalty, 1.0),
            presence_penalty=_first_of(sampling.presence_penalty, 0.0),
            frequency_penalty=_first_of(sampling.frequency_penalty, 0.0),
            logprobs=0 if sampling.logprobs is None else 1,
        )
        if sampling.do_sample:
            own = self._own.get
            config.temperature = _first_of(sampling.temperature, own("temperature"), 1.0)
            config.top_p = _first_of(sampling.top_p, own("top_p"), 1.0)
            config.top_k = int(_first_of(sampling.top_k, own("top_k"), 0))
            # GenAI wants less than 1, which leaves the likeliest token alone just as well
            config.min_p = min(_first_of(sampling.min_p, 0.0), 0.999999)
            seed = random.getrandbits(32) if sampling.seed is None else sampling.seed
            config.rng_seed = seed % 2**32
        return config


def load(spec: EngineSpec) -> OpenVINOBackend:
    """Convert unless that was done before, and compile; StartupError where this engine cannot."""
    started = time.monotonic()
    if spec.device != "cpu":
        raise StartupError(f"the OpenVINO engine is for CPUs; {REMEDY}.")
    if spec.adapters:
        raise StartupError(f"the OpenVINO engine cannot serve LoRA adapters; {REMEDY}.")
    if spec.dtype not in PRECISIONS:
        raise StartupError(
            f"the OpenVINO engine has no {spec.dtype} on CPUs; set SERVE_DTYPE=bfloat16 or float32."
        )
    if spec.cache is not None:
        pipeline, model = _open(spec, _converted(spec, spec.cache))
    else:
        # the weights stay mapped when their file has no name any more
        with tempfile.TemporaryDirectory(prefix="openvino-") as temporary:
            pipeline, model = _open(spec, _converted(spec, Path(temporary)))
    _warm_up(pipeline, model)
    info = EngineInfo(
        version=f"openvino-genai {genai.__version__.partition('-')[0]}",
        load_seconds=time.monotonic() - started,
        attention="paged",
        features=FEATURES,
    )
    return OpenVINOBackend(pipeline, info, model)


def _warm_up(pipeline: Any, model: Model) -> None:
    """Weights are only packed for this CPU when they are first used."""
    config = model.generation_config(Sampling(max_new_tokens=1))
    handle = pipeline.add_request(0, ov.Tensor(np.zeros((1, 1), np.int64)), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    del handle  # dropped earlier, it would cancel the request


def _open(spec: EngineSpec, converted: Path) -> tuple[Any, Model]:
    model = Model(spec.root, converted)
    check_context(spec.context, model.longest_context)
    precision, width = PRECISIONS[spec.dtype]
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = spec.concurrency
    scheduler.max_num_batched_tokens = max(STEP_TOKENS, spec.concurrency)
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True
    weights = (converted / "openvino_model.bin").stat().st_size
    scheduler.num_kv_blocks = _blocks(spec, model.kv_values_per_token * width, weights)
    precisions = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
    try:
        pipeline = genai.ContinuousBatchingPipeline(str(converted), scheduler, "CPU", precisions)
    except RuntimeError as error:
        raise StartupError(
            f"OpenVINO cannot load {converted}: {_last(str(error))[:300]}; delete it, or {REMEDY}."
        ) from error
    return pipeline, model


def check_context(context: int, longest: int | None) -> None:
    """`longest` is what openvino_convert.longest_context gave."""
    if longest is not None and context > longest:
        raise StartupError(
            f"the OpenVINO engine cannot go beyond {longest} tokens with this model's rotary "
            f"embeddings; set SERVE_CONTEXT={longest} or less, or {REMEDY}."
        )


def _converted(spec: EngineSpec, cache: Path) -> Path:
    """The folder with the converted model; made under another name, so that it is whole."""
    target = cache / _fingerprint(spec)
    if target.is_dir():
        return target
    started = time.monotonic()
    log.info("converting %s for OpenVINO (%s), once", spec.root.name, spec.dtype)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".converting-", dir=cache))
    except OSError as error:
        raise StartupError(f"{cache} cannot be written to: {error.strerror}.") from error
    try:
        _run_converter(spec, made)
        (made / SOURCE).write_text(f"{spec.root} {spec.dtype}\n")
        os.rename(made, target)
        _remove_older(target)
    except OSError as error:  # another process was first, or the disk is full
        if not target.is_dir():
            raise StartupError(f"{cache} cannot hold the conversion: {error.strerror}.") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    log.info("converted in %.1f s, kept in %s", time.monotonic() - started, target)
    return target


def _remove_older(target: Path) -> None:
    """Other conversions of the same folder: of older weights, or by older versions."""
    for other in target.parent.glob(f"*/{SOURCE}"):
        if other.parent != target and other.read_text() == (target / SOURCE).read_text():
            shutil.rmtree(other.parent, ignore_errors=True)


def _run_converter(spec: EngineSpec, made: Path) -> None:
    module = "serve.engine.openvino_convert"
    arguments = [str(spec.root), spec.dtype, str(spec.context), str(made)]
    done = subprocess.run(  # noqa: S603  # this very interpreter
        [sys.executable, "-m", module, *arguments],
        cwd=CONVERTER.parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode == STARTUP_ERROR:
        raise StartupError(_last(done.stderr))
    if done.returncode != 0:
        log.error("conversion ended with exit code %d:\n%s", done.returncode, done.stderr[-4000:])
        raise StartupError(
            f"OpenVINO cannot convert {spec.root}: {_last(done.stderr)[:300]}; {REMEDY}."
        )


def _fingerprint(spec: EngineSpec) -> str:
    """Of everything that a conversion is made from; weights by name, size and time."""
    digest = hashlib.sha256(CONVERTER.read_bytes())
    digest.update(f"{ov.__version__} {spec.dtype}".encode())
    try:
        digest.update((spec.root / "config.json").read_bytes())
    except OSError as error:
        raise StartupError(
            f"{spec.root / 'config.json'} cannot be read: {error.strerror}."
        ) from None
    for file in sorted(spec.root.glob("*.safetensors")):
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _blocks(spec: EngineSpec, token_bytes: int, weights: int) -> int:
    """Room for every generation's whole context, or what half of the free memory holds of that.

    GenAI takes memory only as it needs it, and computes a generation anew later where blocks run
    out; that always ends well as long as one whole context fits.
    """
    context = -(-spec.context // BLOCK) + 1
    fits = int((memory.free() - weights) * CACHE_SHARE) // (token_bytes * BLOCK)
    if fits < context:
        raise StartupError(
            f"one answer of {spec.context} tokens needs {context * BLOCK * token_bytes >> 20} MiB "
            "of keys and values, which this machine has not; set a smaller SERVE_CONTEXT."
        )
    return min(context * spec.concurrency, fits)


def _first_of(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"

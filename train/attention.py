"""Which attention implementation trains the model: a safe one first, then the fastest proved right.

    name, reason = choose("gpt_oss", "cuda", "auto")          # what the model is loaded with
    verdict = probe(model, batch, candidates("gpt_oss"), dtype="bfloat16")   # on a GPU, once

Kernels for attention sinks have given wrong losses or gradients without an error (flash-attention
issues 1797 and 1895), so none is trusted by name: on one real pack, every attention layer's output
and gradients, and the loss, must agree with eager attention's before a kernel may be used.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from train.errors import InputError, MachineError, VerificationError, reason
from train.packing import as_trained

log = logging.getLogger(__name__)

EVERYWHERE = ("eager", "sdpa")
"""Implementations that torch alone has, on any device."""
FLASH3 = "kernels-community/vllm-flash-attn3"
"""Flash attention 3 with sinks, from the hub; it needs the `kernels` package."""
HOPPER = ("flash_attention_3", FLASH3)
"""Built for compute capability 9; elsewhere they may take the process down with them."""
PROBE_TOKENS = 2048
"""Tokens of the pack that are probed: eager attention's scores grow with the square of them."""
PROBE_LABELS = 512
"""Trained tokens whose loss is taken, so that the logits stay small."""
TIMED = 2
"""Timed repetitions after the first, which compiles."""
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
"""Largest difference of two losses, as a share of the loss."""
LAYER_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.06}
"""Largest norm of a layer tensor's difference, as a share of its norm.

Measured against eager on random gpt-oss and Mistral models of 2 to 32 layers: another right
implementation is off by at most 3e-6 in float32 and 0.03 in bfloat16; one that forgets the sinks
(even in the backward pass alone), the window, the boundaries or a gradient by at least 0.2.
Gradients of the whole model are no measure in bfloat16: a rounding that reroutes one token to
another expert moves them by up to 0.5, so each layer is fed the reference's own input.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What the probe found out about one implementation."""

    name: str
    outcome: Literal["used", "slower", "wrong", "not available"]
    detail: str
    seconds: float | None = None
    """Forward and backward of the probed pack; None where it did not run or was wrong."""
    loss_difference: float | None = None
    """As a share of the reference's loss."""
    layer_difference: float | None = None
    """Of the worst output or gradient of any attention layer, as a share of its norm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The implementation that the model was left with, and every trial."""

    chosen: str
    tokens: int
    """Tokens of the probed pack."""
    trials: tuple[Trial, ...]

    def lines(self) -> Iterator[str]:
        """One line per implementation, for the log."""
        for trial in self.trials:
            yield f"attention: {trial.name}: {trial.outcome} ({trial.detail})"

    def as_dict(self) -> dict[str, Any]:
        """For the report and metrics.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Pack:
    """One pack on the model's device, and where its loss is taken."""

    inputs: dict[str, Any]
    places: Any
    labels: Any
    dtype: str

    def autocast(self) -> Any:
        """As in training."""
        import torch

        bfloat16 = self.dtype == "bfloat16"
        return torch.autocast(self.places.device.type, torch.bfloat16, enabled=bfloat16)


def reference(model_type: str) -> str:
    """The implementation that is right everywhere: sdpa, or eager where there are sinks."""
    return "eager" if model_type == "gpt_oss" else "sdpa"


def choose(model_type: str, device: str, asked: str) -> tuple[str, str]:
    """Name and reason of the implementation to load the model with.

    What the recipe asks for is loaded at once if torch has it; a kernel waits for the probe.
    Raises InputError for one that cannot train this model on this device.
    """
    safe = reference(model_type)
    why = (
        "gpt-oss has attention sinks, which sdpa cannot compute"
        if safe == "eager"
        else "fastest that every machine has"
    )
    if asked == "auto":
        return safe, why
    if asked == "sdpa" and safe == "eager":
        raise InputError(
            f"model.attention is sdpa, but {why}: set model.attention to auto or eager."
        )
    if asked in EVERYWHERE:
        return asked, "set by the recipe"
    if device == "cpu":
        raise InputError(
            f"model.attention is {asked}, which needs an NVIDIA GPU; this machine trains on its "
            "CPU: set model.attention to auto."
        )
    return safe, f"until the kernel probe has tried {asked}, which the recipe asks for"


def candidates(model_type: str) -> list[str]:
    """Implementations worth probing on a GPU, besides the reference."""
    if model_type == "gpt_oss":
        return ["flex_attention", FLASH3]
    return ["flash_attention_3", "flash_attention_2", "sdpa"]


def probe(
    model: Any, batch: Mapping[str, Any], names: Sequence[str], *, dtype: str, asked: str = "auto"
) -> Verdict:
    """Try the implementations `names` against eager on `batch`; leave the fastest right one set.

    `batch` is one pack as the trainer gets it: input_ids, labels and position_ids, (1, tokens). The
    model's mode is restored and its gradients are cleared. With `asked` (a recipe's own choice)
    only that one is tried: VerificationError says that it is wrong, MachineError that it is not
    there.
    """
    import torch

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = next(model.parameters()).device
    pack = _pack(batch, dtype, device)
    loaded, training = base.config._attn_implementation, model.training
    names = [name for name in ([asked] if asked != "auto" else names) if name != "eager"]
    try:
        # adapter dropout must not draw the numbers that training would
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            base.set_attn_implementation("eager")
            layers = _layers(model, base, pack, None)
            loss, seconds = _step(model, pack)
            trials = [_try(name, model, base, pack, layers, loss) for name in names]
    finally:
        base.set_attn_implementation(loaded)
        model.zero_grad(set_to_none=True)
        model.train(training)
    eager = Trial(name="eager", outcome="slower", detail="the reference", seconds=seconds)
    if asked not in ("auto", "eager") and (trial := trials[0]).seconds is None:
        kind = VerificationError if trial.outcome == "wrong" else MachineError
        raise kind(
            f"model.attention is {asked}, which is {trial.outcome} here ({trial.detail}): "
            "set model.attention to auto."
        )
    verdict = _verdict([*trials, eager], asked, pack.inputs["input_ids"].shape[1])
    base.set_attn_implementation(verdict.chosen)
    for line in verdict.lines():
        log.info("%s", line)
    return verdict


def _pack(batch: Mapping[str, Any], dtype: str, device: Any) -> _Pack:
    """The first tokens of `batch`, as the trainer's collator would hand them over alone."""
    import torch

    tokens = batch["input_ids"][0, :PROBE_TOKENS].tolist()
    starts = (batch["position_ids"][0, : len(tokens)] == 0).nonzero().flatten().tolist()
    lengths = [b - a for a, b in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    inputs = as_trained(tokens, batch["labels"][0, : len(tokens)].tolist(), lengths, device)
    labels = inputs.pop("labels")[0]
    places = (labels[1:] != -100).nonzero().flatten()
    if not len(places):
        raise InputError(
            f"the first pack has no trained token in its first {len(tokens)}, so no attention "
            "kernel can be proved on it: shorten the prompts, or set model.attention to "
            "eager or sdpa."
        )
    spread = torch.linspace(0, len(places) - 1, min(PROBE_LABELS, len(places)), device=device)
    places = places[spread.long()]
    return _Pack(inputs, places, labels[places + 1], dtype)


def _layers(model: Any, base: Any, pack: _Pack, exact: list[dict[str, Any]] | None) -> list[Any]:
    """Per attention layer: its input, its output, and the gradients of its input and parameters.

    The gradients are those of a fixed random direction of the output. With `exact` (an earlier
    result) every layer is given the input that it had there. Nothing is kept for a backward pass of
    the whole model, so this takes less memory than a step.
    """
    import torch

    found: list[dict[str, Any]] = []

    def inspect(layer: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        seen = exact[len(found)]["input"] if exact else kwargs["hidden_states"]
        start = seen.detach().requires_grad_()
        trained = {name: p for name, p in layer.named_parameters() if p.requires_grad}
        generator = torch.Generator().manual_seed(len(found))
        with torch.enable_grad():
            out = layer.forward(*args, **{**kwargs, "hidden_states": start})[0]
            direction = torch.randn(out.shape, generator=generator).to(out)
            gradients = torch.autograd.grad(
                out, [start, *trained.values()], direction, materialize_grads=True
            )
        named = dict(zip(["of the input", *trained], gradients, strict=True))
        found.append({"input": start.detach(), "output": out.detach(), **named})

    hooks = [
        module.register_forward_hook(inspect, with_kwargs=True)
        for module in base.modules()
        if hasattr(module, "layer_idx") and type(module).__name__.endswith("Attention")
    ]
    model.eval()
    try:
        with torch.no_grad(), pack.autocast():
            model(**pack.inputs, logits_to_keep=1, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _step(model: Any, pack: _Pack) -> tuple[float, float]:
    """Loss of the pack, and the seconds of a forward and backward pass, in training mode."""
    import torch

    def synchronise() -> None:
        if pack.places.is_cuda:
            torch.cuda.synchronize(pack.places.device)

    model.train()
    loss, seconds = 0.0, []
    for _ in range(1 + TIMED):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        synchronise()
        started = time.monotonic()
        with pack.autocast():
            logits = model(**pack.inputs, logits_to_keep=pack.places, use_cache=False).logits[0]
        result = torch.nn.functional.cross_entropy(logits.float(), pack.labels)
        result.backward()  # type: ignore[no-untyped-call]  # torch gives it none
        loss = result.item()
        synchronise()
        seconds.append(time.monotonic() - started)
    return loss, min(seconds[1:])


def _try(
    name: str, model: Any, base: Any, pack: _Pack, exact: list[dict[str, Any]], exact_loss: float
) -> Trial:
    if name in HOPPER and not _is_hopper(pack.places.device):
        return Trial(name=name, outcome="not available", detail="needs a Hopper GPU (H100, H200)")
    try:
        base.set_attn_implementation(name)
        layer_difference, where = _worst(_layers(model, base, pack, exact), exact)
        loss, seconds = _step(model, pack)
    except Exception as error:  # a kernel may fail in any way that its author did not think of
        return Trial(name=name, outcome="not available", detail=reason(error)[:200])
    loss_difference = abs(loss - exact_loss) / abs(exact_loss)
    # so written, a NaN is wrong
    right = (
        loss_difference <= LOSS_TOLERANCE[pack.dtype]
        and layer_difference <= LAYER_TOLERANCE[pack.dtype]
    )
    detail = f"loss {loss:.4f} against {exact_loss:.4f}, {where} off by {layer_difference:.2g}"
    if not right:
        detail += f"; at most {LOSS_TOLERANCE[pack.dtype]:g} of the loss and "
        detail += f"{LAYER_TOLERANCE[pack.dtype]:g} are rounding in {pack.dtype}"
    return Trial(
        name=name,
        outcome="slower" if right else "wrong",
        detail=detail,
        seconds=seconds if right else None,
        loss_difference=loss_difference,
        layer_difference=layer_difference,
    )


def _is_hopper(device: Any) -> bool:
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def _worst(layers: list[dict[str, Any]], exact: list[dict[str, Any]]) -> tuple[float, str]:
    """Largest |a - b| / |b| over the layers' outputs and gradients, and the name of that tensor."""
    worst = (0.0, "no tensor")
    for index, (found, true) in enumerate(zip(layers, exact, strict=True)):
        for name in true.keys() - {"input"}:
            size = float(true[name].float().norm())
            distance = float((found[name].float() - true[name].float()).norm())
            share = distance / size if size else (0.0 if distance == 0 else float("inf"))
            if not share <= worst[0]:
                what = name if name == "output" else f"gradient {name}"
                worst = (share, f"layer {index}'s {what}")
    return worst


def _verdict(trials: list[Trial], asked: str, tokens: int) -> Verdict:
    """The fastest of those that are right, or the one that the recipe asks for."""
    right = [trial for trial in trials if trial.seconds is not None]
    best = min(right, key=lambda trial: (trial.name != asked, trial.seconds))

    def told(trial: Trial) -> Trial:
        if trial.seconds is None:
            return trial
        detail = f"{trial.seconds * 1000:,.0f} ms for {tokens:,} tokens; {trial.detail}"
        return replace(trial, outcome="used" if trial is best else "slower", detail=detail)

    return Verdict(chosen=best.name, tokens=tokens, trials=tuple(map(told, trials)))

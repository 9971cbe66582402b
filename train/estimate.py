"""Memory and time of a recipe before anything is loaded or paid for, with the arithmetic.

    guess = estimate(recipe, settings)                    # settings: transformers' AutoConfig
    print(*lines(guess, gpus.find("H100")), sep="\\n")

What lies still is exact (parameters of the model on the meta device, times bytes). What comes and
goes is counted by train/simulation.py on the model's own code. What the machine adds is a constant
here, with its reason. The time is a range: peak FLOP/s times a utilisation.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from train.attention import choose
from train.gpus import Gpu
from train.recipe import Recipe
from train.trainer import LARGE

BYTES = {"float32": 4, "bfloat16": 2}
NF4_BYTES = 0.516
"""Bytes a parameter in NF4 with double quantisation: 4 bits, and 0.127 bits of scales
(arXiv:2305.14314, section 3)."""
CONTEXT = {
    "cuda": (int(0.9 * 2**30), "context of the GPU, workspaces of the matrix libraries"),
    "cpu": (int(0.05 * 2**30), "buffers of the threads; glibc may keep as much again as it frees"),
}
"""What the process takes besides tensors, above its loaded libraries. A CUDA context is about 0.5
GB on recent GPUs. On a CPU, glibc and the kernels that oneDNN keeps for every shape have doubled
the peak of a small mixture of experts (`make bench-estimate`); that is not counted."""
SLACK = 0.08
"""Share of what comes and goes that the allocator cannot reuse, since blocks do not fit."""
UTILISATION = (0.10, 0.40)
"""Share of the peak FLOP/s that a run reaches. Published: 0.28 for full training of gpt-oss-20b and
about 0.4 for LoRA on 8B with a tuned stack (NeMo Automodel, H100); 0.1 where eager attention,
short packs or many small experts keep the GPU waiting."""


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the arithmetic."""

    name: str
    bytes: int
    formula: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Memory of one process at its peak, and the work of the run."""

    parts: tuple[Part, ...]
    device: Literal["cuda", "cpu"]
    attention: str
    checkpointing: bool
    parameters: int
    trainable: int
    flops_per_token: float
    flops_formula: str
    tokens: int | None
    """Tokens that all processes together train on; None where the number of rows is not known."""
    processes: int

    @property
    def total(self) -> int:
        return sum(part.bytes for part in self.parts)

    def seconds(self, gpu: Gpu) -> tuple[float, float] | None:
        """Shortest and longest time of training on `processes` such GPUs."""
        if self.tokens is None or not gpu.flops:
            return None
        work = self.tokens * self.flops_per_token / self.processes / gpu.flops
        return work / UTILISATION[1], work / UTILISATION[0]


def estimate(
    recipe: Recipe,
    settings: Any,
    *,
    processes: int = 1,
    device: Literal["cuda", "cpu"] = "cuda",
    dtype: str = "bfloat16",
    tokens: int | None = None,
) -> Estimate:
    """The estimate for one process of `processes`, each with a device of its own.

    `dtype` is what `model.dtype: auto` means there. `tokens` is what one epoch holds, where it is
    known; else only `training.max_steps` tells the time. Raises InputError where the adapter fits
    nothing.
    """
    from train.simulation import empty_model

    full = recipe.tuning == "full"
    dtype = dtype if recipe.model.dtype == "auto" else recipe.model.dtype
    stored = "float32" if full else dtype
    model = empty_model(settings, recipe, stored)
    trained = [p for p in model.parameters() if p.requires_grad]
    trainable = sum(p.numel() for p in trained)
    parameters = sum(p.numel() for p in model.parameters()) - (0 if full else trainable)
    wanted = recipe.training.gradient_checkpointing
    checkpointing = parameters >= LARGE if wanted == "auto" else wanted
    attention = recipe.model.attention
    if attention == "auto":
        attention, _ = choose(settings.model_type, device, attention)
    still = _still(model, recipe, stored, parameters, trained, processes)
    moving = _moving(settings, recipe, stored, dtype, attention, checkpointing, device)
    flops, formula = _flops(model, settings, recipe, parameters, checkpointing)
    training = recipe.training
    if training.max_steps > 0:
        a_step = training.packs_per_step * training.max_length * (1 + (recipe.method == "dpo"))
        tokens = training.max_steps * a_step * processes
    elif tokens is not None:
        tokens = round(tokens * training.epochs)
    slack = int(SLACK * sum(part.bytes for part in moving))
    return Estimate(
        parts=(
            *still,
            *moving,
            Part("allocator", slack, f"{SLACK:.0%} of what comes and goes"),
            Part("process", *CONTEXT[device]),
        ),
        device=device,
        attention=attention,
        checkpointing=checkpointing,
        parameters=parameters,
        trainable=trainable,
        flops_per_token=flops,
        flops_formula=formula,
        tokens=tokens,
        processes=processes,
    )


def fits(guess: Estimate, memory: int) -> bool:
    """Whether the estimate is within `memory` bytes."""
    return guess.total <= memory


def lines(guess: Estimate, gpu: Gpu | None = None) -> Iterator[str]:
    """The arithmetic as aligned lines: part, size, how it was reckoned; then the verdict."""
    rows = [(p.name, size(p.bytes), p.formula) for p in guess.parts if p.bytes]
    rows.append(("peak", size(guess.total), f"{guess.attention} attention"))
    width, wide = (max(len(row[i]) for row in rows) for i in (0, 1))
    for name, amount, formula in rows:
        yield f"{name:<{width}}  {amount:>{wide}}  {formula}"
    if gpu is None:
        return
    verdict = "fits into" if fits(guess, gpu.memory) else "does not fit into"
    yield f"{verdict} {gpu.name} ({size(gpu.memory)})"
    if span := guess.seconds(gpu):
        low, high = UTILISATION
        yield (
            f"time: {_hours(span[0])} to {_hours(span[1])} on {guess.processes} x {gpu.name}, "
            f"estimated: {guess.tokens:,} tokens x {guess.flops_per_token:.3g} FLOP "
            f"({guess.flops_formula}) at {high:.0%} to {low:.0%} of {gpu.flops / 1e12:,.0f} TFLOP/s"
        )


def size(amount: float) -> str:
    """Bytes for people: GiB, or MiB below one."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def _still(
    model: Any, recipe: Recipe, stored: str, parameters: int, trained: list[Any], processes: int
) -> list[Part]:
    """What stays from the first step to the last."""
    import torch

    sharded = recipe.training.distributed == "fsdp2" and processes > 1
    share, of = (processes, f" / {processes} processes") if sharded else (1, "")
    adapters = sum(p.nbytes for p in trained)
    each = trained[0].element_size() if trained else 4
    count = sum(p.numel() for p in trained)
    if recipe.tuning == "qlora":
        base = model.get_base_model()
        head = base.get_output_embeddings()
        linear = sum(
            module.weight.numel()
            for module in base.modules()
            if isinstance(module, torch.nn.Linear)
            and module is not head
            and not module.weight.requires_grad
        )
        weights = int(linear * NF4_BYTES) + (parameters - linear) * BYTES[stored]
        text = f"{linear:,} x {NF4_BYTES} (NF4) + {parameters - linear:,} x {BYTES[stored]}"
    else:
        weights = parameters * BYTES[stored]
        text = f"{parameters:,} x {BYTES[stored]} ({stored})"
    parts = [Part("weights", weights // share, text + of)]
    if recipe.method == "dpo" and recipe.tuning == "full":
        parts.append(Part("reference", weights // share, "the model it is held to: " + text + of))
    if recipe.tuning != "full":
        parts.append(Part("adapter", adapters // share, f"{count:,} x {each}{of}"))
    parts += [
        Part("gradients", adapters // share, f"{count:,} x {each}{of}"),
        Part("AdamW", 2 * adapters // share, f"{count:,} x 2 moments x {each}{of}"),
    ]
    if processes > 1 and not sharded:
        parts.append(Part("DDP buckets", adapters, f"{count:,} x {each}, sent between processes"))
    if sharded:
        blocks = [sum(p.nbytes for p in layer.parameters()) for layer in _decoder_layers(model)]
        rest = weights + adapters - sum(blocks)
        whole = rest + 2 * max(blocks)
        parts.append(Part("gathered", whole, "embeddings, head and two layers, not sharded"))
    return parts


def _decoder_layers(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.get_decoder().layers


def _moving(
    settings: Any,
    recipe: Recipe,
    stored: str,
    dtype: str,
    attention: str,
    checkpointing: bool,
    device: str,
) -> list[Part]:
    """What comes and goes within a micro-batch, from two shallow models."""
    from train.simulation import FUSED, Moments, empty_model, step

    layers = settings.num_hidden_layers
    dpo = recipe.method == "dpo"
    rows, tokens = 1 + dpo, recipe.training.max_length
    padded = dpo or not recipe.training.packing

    def counted(recipe: Recipe) -> Moments:
        # on a CPU packs are attended to row by row (train/rows.py), without a mask
        unmasked = device == "cpu" and not padded and attention == "sdpa"

        def at(depth: int) -> Moments:
            return step(
                empty_model(settings, recipe, stored, layers=depth),
                rows=rows,
                tokens=tokens,
                padded=padded,
                attention=FUSED if unmasked else attention,
                checkpointing=checkpointing,
                autocast=dtype == "bfloat16",
                accumulates=recipe.training.packs_per_step > 1,
                triton=device == "cuda",
            )

        if layers <= 4:
            return at(layers)
        return at(2).along(at(4), (layers - 2) / 2)  # two: gpt-oss alternates two kinds of layer

    named = [re.match(r"(?:.*\.)?(\d+)\.", target) for target in recipe.lora.target_parameters]
    if named and all(named):  # experts of some layers: a share of the way to all of them
        adapted = {int(match[1]) for match in named if match}
        suffixes = sorted({t.split(".", 1)[1] for t in _bare(recipe.lora.target_parameters)})
        every = counted(_with_experts(recipe, suffixes))
        some = counted(_with_experts(recipe, [])).along(every, len(adapted) / layers)
        # kept by each; the fullest moment is still that of an adapted layer
        moments = Moments(
            some.kept,
            some.kept + every.forward - every.kept,
            some.kept + every.backward - every.kept,
        )
        text = f"{layers} layers, of which {len(adapted)} with adapted experts"
    else:
        moments = counted(recipe)
        text = f"{layers} layers"
    kept, peak = int(moments.kept), int(moments.peak)
    where = "backward" if moments.backward >= moments.forward else "forward"
    recomputed = "input of each; the rest is recomputed" if checkpointing else "all of it"
    batch = f"{rows} x {tokens:,} tokens" if rows > 1 else f"{tokens:,} tokens"
    parts = [
        Part("activations", kept, f"{text} x {size(kept / layers)} for {batch}: {recomputed}"),
        Part(
            "working memory",
            max(peak - kept, 0),
            f"{where} pass at its fullest: {_largest(settings, recipe, attention, dtype, device)}",
        ),
    ]
    if recipe.tuning == "qlora":
        widest = max(
            (getattr(settings, "intermediate_size", 0) * settings.hidden_size * 2),
            settings.hidden_size**2,
        )
        parts.append(Part("dequantised", widest * 2, "widest layer from NF4 to bfloat16"))
    return parts


def _bare(targets: Sequence[str]) -> list[str]:
    """`model.layers.7.mlp.experts.down_proj` -> `7.mlp.experts.down_proj`."""
    return [re.sub(r"^.*?(\d+\.)", r"\1", target) for target in targets]


def _with_experts(recipe: Recipe, targets: list[str]) -> Recipe:
    lora = dataclasses.replace(recipe.lora, target_parameters=targets)
    return dataclasses.replace(recipe, lora=lora)


def _largest(settings: Any, recipe: Recipe, attention: str, dtype: str, device: str) -> str:
    """The big tensors of one layer and of the head, in words and numbers."""
    from train.simulation import HEAD_TOKENS, HEAD_WORDS

    each, tokens = BYTES[dtype], recipe.training.max_length
    told = []
    if recipe.lora.target_parameters and recipe.tuning == "lora":
        experts = getattr(settings, "num_local_experts", 0)
        inner, outer = settings.intermediate_size, settings.hidden_size
        weight = experts * 3 * inner * outer * each
        told.append(
            f"adapted experts {experts} x 3 x {inner} x {outer} x {each} = {size(weight)}, "
            "rebuilt, and as much again for their gradient"
        )
    if attention == "eager":
        heads = settings.num_attention_heads
        scores = heads * tokens**2 * each
        told.append(f"scores {heads} heads x {tokens:,}² x {each} = {size(scores)}, some copies")
    if device == "cuda":
        tile = min(tokens, HEAD_TOKENS) * HEAD_WORDS * each
        told.append(f"head in tiles of {size(tile)}, no full logits")
    else:
        logits = tokens * settings.vocab_size * 4
        told.append(
            f"logits {tokens:,} x {settings.vocab_size:,} x 4 = {size(logits)}, some copies"
        )
    return "; ".join(told)


def _flops(
    model: Any, settings: Any, recipe: Recipe, parameters: int, checkpointing: bool
) -> tuple[float, str]:
    """FLOP per token: 2 for each active parameter, forward, backward, again where recomputed."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    experts = sum(
        p.numel() for n, p in base.named_parameters() if ".experts." in n and "lora_" not in n
    )
    active = parameters - base.get_input_embeddings().weight.numel()
    if experts:
        used = settings.num_experts_per_tok / settings.num_local_experts
        active -= round(experts * (1 - used))
    # of the backward pass: 2 for the inputs' gradients, 2 for the weights' where they are trained
    times = 6 if recipe.tuning == "full" else 4
    text = "6 N: forward 2, backward 4" if times == 6 else "4 N: forward 2, backward 2, base frozen"
    if checkpointing:
        times, text = times + 2, text.replace(f"{times} N", f"{times + 2} N") + ", recomputed 2"
    if recipe.method == "dpo":
        times, text = times + 2, text.replace(f"{times} N", f"{times + 2} N") + ", reference 2"
    if experts and recipe.lora.target_parameters and recipe.tuning == "lora":
        routed = experts * settings.num_experts_per_tok / settings.num_local_experts
        extra, text = 2 * routed, f"{text}, experts' gradients 2 x {routed / 1e9:.3g} billion"
    else:
        extra = 0.0
    # scores and their use: 2 x 2 x length x width a layer, half of it behind the causal mask
    heads = settings.num_attention_heads
    width = heads * (getattr(settings, "head_dim", None) or settings.hidden_size // heads)
    scores = 2 * settings.num_hidden_layers * recipe.training.max_length * width
    flops = times * active + extra + scores * times / 2
    return flops, f"{text}, N = {active / 1e9:.3g} billion active"


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

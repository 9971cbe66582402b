"""One training step without its numbers: every tensor is counted, none is allocated.

    model = empty_model(settings, recipe)            # on the meta device, with the recipe's adapter
    moments = step(empty_model(settings, recipe, layers=2), tokens=2048, rows=1, …)

The model's own code runs on PyTorch's fake tensors, which know their shapes alone, so what is kept
for the backward pass and what comes and goes is counted rather than guessed, for every
architecture that transformers has. Two depths are enough: what a layer adds does not depend on
how many there are. The head on a GPU is TRL's (1.16), whose sizes are repeated in
`_loss`.
"""

import contextlib
import copy
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from train.errors import InputError
from train.recipe import Recipe

HEAD_TOKENS, HEAD_WORDS = 4096, 32768
"""TRL's fused head multiplies tiles of this many tokens and vocabulary entries at a time."""
FUSED = "homeport_fused"
"""Attention that keeps its inputs and output alone, as flash and flex kernels do."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Bytes at the moments that matter, beyond weights, gradients and optimiser."""

    kept: float
    """Alive between the forward and the backward pass."""
    forward: float
    """Peak of the forward pass."""
    backward: float
    """Peak of the backward pass."""

    def along(self, other: "Moments", steps: float) -> "Moments":
        """The point `steps` times as far from here as `other` is."""
        return Moments(
            self.kept + steps * (other.kept - self.kept),
            self.forward + steps * (other.forward - self.forward),
            self.backward + steps * (other.backward - self.backward),
        )

    @property
    def peak(self) -> float:
        return max(self.forward, self.backward)


def empty_model(
    settings: Any, recipe: Recipe, dtype: str, *, layers: int | None = None, adapted: bool = True
) -> Any:
    """The model of a configuration on the meta device, with what the recipe trains; no weights.

    With `layers` it is only so deep; not `adapted`, it is bare. Raises InputError for targets that
    match nothing, and for an architecture that transformers has no causal model of.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from train import adapter

    settings = copy.deepcopy(settings)
    if getattr(settings, "quantization_config", None):
        del settings.quantization_config  # trained in plain weights
    if layers is not None:
        settings.num_hidden_layers = layers
        if getattr(settings, "layer_types", None):
            settings.layer_types = settings.layer_types[:layers]
    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype))
        except ValueError as error:
            raise InputError(
                f"model.base: {recipe.model.base} is a {settings.model_type}, which is no causal "
                f"language model that can be trained ({' '.join(str(error).split())[:120]})."
            ) from None
        if not adapted or (lora := adapter.config(model, recipe)) is None:
            return model
        try:
            return get_peft_model(model, lora)
        except ValueError as error:
            raise InputError(f"lora: {' '.join(str(error).split())}") from None


def step(
    model: Any,
    *,
    rows: int,
    tokens: int,
    padded: bool,
    attention: str,
    checkpointing: bool,
    autocast: bool,
    accumulates: bool,
    triton: bool,
) -> Moments:
    """Count one micro-batch of `rows` x `tokens` through `model` (on the meta device; is changed).

    `padded` batches have an attention mask, packs have positions. `accumulates`: gradients of an
    earlier micro-batch are there already. `triton`: the head runs as on a GPU.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if checkpointing:
        base.activation_checkpointing_enable()
    base.set_attn_implementation(_registered(attention))
    model.train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained if accumulates else []:
            parameter.grad = torch.empty_like(parameter)
        ids = torch.zeros((rows, tokens), dtype=torch.long)
        where = {"attention_mask": torch.ones_like(ids)} if padded else {}
        if not padded:
            where["position_ids"] = torch.arange(tokens)[None]
        with _counting(model) as count:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                hidden = base.get_decoder()(input_ids=ids, use_cache=False, **where)[0][:, :-1]
                weight = base.get_output_embeddings().weight
                result = _loss(hidden.reshape(-1, hidden.shape[-1]), weight, triton)
            kept, forward = count.live, count.peak
            count.peak = count.live
            result.backward()
            # gradients are counted with what is trained
            made = 0 if accumulates else sum(p.grad.nbytes for p in trained if p.grad is not None)
            return Moments(kept, forward, max(count.peak - made, 0))


def _make_fake(model: Any) -> None:
    """Replace what lies on the meta device by fake tensors that say they are on the CPU."""
    import torch

    made: dict[int, tuple[Any, Any]] = {}
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, old in kind.items():
                if old is None:
                    continue
                if id(old) not in made:  # tied weights stay one
                    new: Any = torch.empty(old.shape, dtype=old.dtype)
                    if isinstance(old, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
                    made[id(old)] = (new, old)  # holds the old one, so that its id stays its own
                kind[name] = made[id(old)][0]


class _Count:
    """Bytes of the storages that live, and their peak."""

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        self.known: dict[int, int] = {}

    def add(self, tensor: Any, size: int | None = None) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known[key] = storage.nbytes() if size is None else size
        self.live += self.known[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.drop, key)

    def drop(self, key: int) -> None:
        self.live -= self.known.pop(key, 0)


@contextlib.contextmanager
def _counting(model: Any) -> Iterator[_Count]:
    """Count what operations make from here on; what the model holds counts as nothing."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    count = _Count()

    class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it none
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten._grouped_mm.default:
                result = _grouped_mm(*args, **(kwargs or {}))
            else:
                result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if hasattr(leaf, "untyped_storage"):
                    count.add(leaf)
            return result

    for held in (*model.parameters(), *model.buffers()):
        count.add(held, size=0)
        if held.grad is not None:
            count.add(held.grad, size=0)
    with Mode():  # type: ignore[no-untyped-call]
        yield count


def _grouped_mm(left: Any, right: Any, offs: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Its result's shape: torch 2.13 refuses to tell it of float32, though it computes in it.

    (rows, in) x (experts, in, out) -> (rows, out), or a gradient: (in, rows) x (rows, out) ->
    (experts, in, out).
    """
    if right.dim() == 3:
        return left.new_empty((left.shape[0], right.shape[2]))
    return left.new_empty((len(offs), left.shape[0], right.shape[1]))


def _loss(hidden: Any, weight: Any, triton: bool) -> Any:
    """Scalar loss over hidden states (tokens, width), every token a label, as the trainers take it.

    On a GPU TRL's fused head, in sizes alone; on a CPU the logits and their cross entropy.
    """
    import torch
    from torch.nn.functional import cross_entropy, linear

    if not triton:
        labels = torch.zeros(len(hidden), dtype=torch.long)
        return cross_entropy(linear(hidden, weight).float(), labels)

    class Head(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any) -> Any:
            on = torch.is_autocast_enabled("cpu")
            ctx.compute = torch.bfloat16 if on else hidden.dtype
            ctx.save_for_backward(hidden, weight)
            buffers = _tile(hidden, weight, ctx.compute)
            del buffers
            return hidden.new_empty(len(hidden), dtype=torch.float32)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            hidden, weight = ctx.saved_tensors
            to_hidden = hidden.new_empty(hidden.shape, dtype=torch.float32)
            trains = ctx.needs_input_grad[1]
            to_weight = weight.new_empty(weight.shape, dtype=torch.float32) if trains else None
            buffers = _tile(hidden, weight, ctx.compute)
            del buffers
            return (
                to_hidden.to(hidden.dtype),
                None if to_weight is None else to_weight.to(weight.dtype),
            )

    return Head.apply(hidden, weight).sum()  # type: ignore[no-untyped-call]


def _tile(hidden: Any, weight: Any, compute: Any) -> list[Any]:
    """A tile of logits, and of the weight where it must be cast."""
    tokens, words = min(len(hidden), HEAD_TOKENS), min(len(weight), HEAD_WORDS)
    buffers = [hidden.new_empty((tokens, HEAD_WORDS), dtype=compute)]
    if weight.dtype != compute:
        buffers.append(weight.new_empty((words, weight.shape[1]), dtype=compute))
    return buffers


def _registered(attention: str) -> str:
    """`attention` if it runs without a GPU, else the name of a stand-in that keeps as much."""
    if attention in ("eager", "sdpa"):
        return attention
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            out = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, out)
            return out

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return tuple(torch.empty_like(saved) for saved in ctx.saved_tensors[:3])

    def attend(_: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        out = Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return out.transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS.register(FUSED, attend)
    return FUSED

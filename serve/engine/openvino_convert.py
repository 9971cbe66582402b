"""A Hugging Face decoder, as transformers computes it, written down as an OpenVINO model.

    python -m serve.engine.openvino_convert ROOT bfloat16 CONTEXT TARGET
    # TARGET/openvino_model.xml, openvino_model.bin and facts.json

transformers' own modules are traced, so that rotary embeddings, norms and experts are theirs.
Three things are put in their place: attention becomes one operation per layer, in the very form
that OpenVINO GenAI turns into paged attention (keys and values in a state, the sliding window as a
mask it recognises, attention sinks as sixth input); masks become no more than the window's size;
experts are all computed, chosen or not, and stored in fp32, which suits small models only. What
that would get wrong is refused. Other weights keep their precision; nothing is quantised.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation
from openvino.frontend.pytorch import ConversionExtension, patch_model
from openvino.opset13.ops import _get_node_factory_opset13
from openvino.passes import ConstantFolding, Manager
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.masking_utils import AttentionMaskInterface
from transformers.utils import logging as transformers_logging

from serve.engine.openvino_engine import REMEDY, STARTUP_ERROR, check_context
from serve.errors import StartupError

NAME = "homeport_openvino"
"""Under which transformers finds attention, masks and experts of this module."""
MODEL_TYPES = frozenset(
    ["gemma3_text", "gpt_oss", "llama", "mistral", "phi3", "qwen2", "qwen3", "qwen3_moe"]
)
"""Architectures whose answers tests compare with transformers', token for token."""
PAGED_ATTENTION_WINDOW = 10
"""Where the sliding window stands among the inputs of OpenVINO's paged attention."""


def longest_context(config: Any) -> int | None:
    """Tokens up to which rotary embeddings stay the same, where they do not for ever.

    Beyond it, transformers computes whole sequences with other frequencies; in a batch, sequences
    on either side of it would stand side by side.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [
        one.get("original_max_position_embeddings") or config.max_position_embeddings
        for one in (rope, *rope.values())
        if isinstance(one, dict) and one.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(limits, default=None)


def convert(root: Path, dtype: str, context: int, target: Path) -> None:
    """Convert the model in `root`; takes about the time that loading it takes, and its memory."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
        text = config.get_text_config()
        if text.model_type not in MODEL_TYPES:
            raise StartupError(
                f"the OpenVINO engine is not verified for {text.model_type} models; {REMEDY}."
            )
        limit = longest_context(text)
        check_context(context, limit)
        model, report = AutoModelForCausalLM.from_pretrained(
            root,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=NAME,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise StartupError(f"the model in {root} does not load: {_first(error)}.") from error
    for what in ("missing_keys", "mismatched_keys"):
        if report[what]:
            first = sorted(str(name) for name in report[what])[0]
            raise StartupError(
                f"{root} is not a whole model: {len(report[what])} {what}, first {first}."
            )
    converted = _trace(model.eval(), text, dtype)
    windows = _paged_windows(converted)
    expected = _expected_windows(text)
    if windows != expected:
        raise StartupError(
            f"OpenVINO understood the attention of this model as {windows} instead of {expected}; "
            f"{REMEDY}."
        )
    try:
        ov.save_model(converted, target / "openvino_model.xml", compress_to_fp16=False)
    except RuntimeError as error:  # an iostream's, which says no more
        free = shutil.disk_usage(target).free // 2**20
        raise StartupError(
            f"{target.parent} cannot hold the conversion, with {free:,} MiB free; make room there, "
            "or set SERVE_ENGINE_CACHE to another folder."
        ) from error
    states = [node.get_output_partial_shape(0) for node in _nodes(converted, "ReadValue")]
    facts = {
        "longest_context": limit,
        "vocabulary": converted.output("logits").get_partial_shape()[2].get_length(),
        "kv_values_per_token": sum(s[1].get_length() * s[3].get_length() for s in states),
    }
    (target / "facts.json").write_text(json.dumps(facts))


@torch.library.custom_op("homeport::attention", mutates_args=())
def _attention_operation(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor,
    scale: float,
    window: int,
    shape: list[int],
) -> torch.Tensor:
    """Stands for attention while tracing; only its shape counts."""
    return query.new_zeros(*query.shape[:-1], value.shape[-1])


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    s_aux: torch.Tensor | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    if softcap is not None:
        raise StartupError(f"OpenVINO has no attention with capped logits; {REMEDY}.")
    output = torch.ops.homeport.attention(
        query,
        key,
        value,
        torch.zeros(0) if s_aux is None else s_aux,
        float(query.shape[-1] ** -0.5 if scaling is None else scaling),
        int(attention_mask),
        [int(n) for n in (query.shape[1], key.shape[1], key.shape[3], value.shape[3])],
    )
    return output.transpose(1, 2), None


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    local_size: int | None = None,
    **others: Any,
) -> torch.Tensor:
    """Every mask here is causal, so its window says all: 0 is none."""
    return torch.tensor(local_size or 0)


def _experts(
    self: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """All experts on all tokens, weighted: a trace has no shapes that depend on data."""
    tokens, width = hidden.shape
    count = self.gate_up_proj.size(0)
    gate_up, down = self.gate_up_proj, self.down_proj
    if not self.is_transposed:
        gate_up, down = gate_up.transpose(1, 2), down.transpose(1, 2)
    share = torch.zeros(tokens, count, dtype=hidden.dtype).scatter_(1, chosen, weights)
    states = torch.bmm(hidden.repeat(count, 1).view(count, -1, width), gate_up)
    if self.has_bias:
        states = states + self.gate_up_proj_bias[..., None, :]
    states = torch.bmm(self._apply_gate(states), down)
    if self.has_bias:
        states = states + self.down_proj_bias[..., None, :]
    states = states.view(count, tokens, -1, width)
    return (states * share.transpose(0, 1).view(count, tokens, -1)[..., None]).sum(dim=0)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
ALL_EXPERTS_FUNCTIONS.register(NAME, _experts)


class _Logits(torch.nn.Module):
    """The model with the two inputs that GenAI gives it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),  # else positions are searched for packing
            position_ids=position_ids,
            use_cache=False,
        ).logits
        return logits


def _trace(model: Any, config: Any, dtype: str) -> Any:
    if any(hasattr(module, "gate_up_proj") for module in model.modules()):
        model.set_experts_implementation(NAME)
    if dtype != "float32":
        # OpenVINO's own helper, by its private name: 16-bit weights, computations traced in fp32
        getattr(patch_model, "__make_16bit_traceable")(model)
    for module in model.modules():
        if getattr(module, "rope_type", None) in ("longrope", "dynamic"):
            module.rope_type = "default"  # the context never needs the other frequencies
    ids = torch.tensor([[3, 4, 5, 6], [4, 5, 6, 7]])
    positions = torch.arange(4).repeat(2, 1)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that shapes and the window are constants in a trace
        converted = ov.convert_model(
            _Logits(model),
            example_input={"input_ids": ids, "position_ids": positions},
            extension=[ConversionExtension("homeport::attention", _emit_attention)],
        )
    converted.outputs[0].get_tensor().set_names({"logits"})
    return _with_state(converted)


def _constant(value: Any, kind: Any = np.int64) -> Any:
    return ops.constant(np.array(value, dtype=kind))


def _emit_attention(context: Any) -> Any:
    query, key, value, sinks = (context.get_input(i) for i in range(4))
    scale, window, shape = (context.get_values_from_const_input(i) for i in range(4, 7))
    heads, kv_heads, key_width, value_width = (int(n) for n in shape)

    def spread(states: Any, width: int) -> Any:
        states = ops.reshape(states, _constant([0, kv_heads, -1, width]), True)
        if heads == kv_heads:
            return states
        wide = ops.broadcast(
            ops.unsqueeze(states, _constant(2)),
            _constant([1, 1, heads // kv_heads, 1, 1]),
            broadcast_spec="BIDIRECTIONAL",
        )
        return ops.reshape(wide, _constant([0, heads, -1, width]), True)

    mask = _window_mask(query, int(window)) if window else _constant([[[[0]]]], np.float32)
    inputs = [query, spread(key, key_width), spread(value, value_width), mask]
    inputs.append(_constant(scale, np.float32))
    if sinks.get_partial_shape() != ov.PartialShape([0]):
        sinks = ops.convert(sinks, "f32")
        inputs.append(ops.reshape(sinks, _constant([1, heads, 1, 1]), False))
    # by the factory, because the Python function knows no sinks
    outputs = [one if isinstance(one, ov.Output) else one.output(0) for one in inputs]
    create = _get_node_factory_opset13().create
    return create("ScaledDotProductAttention", outputs, {"causal": False}).outputs()


def _window_mask(query: Any, window: int) -> Any:
    """Never computed: OpenVINO reads the window out of this very chain of operations."""
    length = ops.gather(ops.shape_of(query), _constant([2]), _constant(0))
    scalar = ops.squeeze(length, _constant([0]))
    index = ops.range(_constant(0), scalar, _constant(1), "i64")
    rows, columns = (ops.unsqueeze(index, _constant(axes)) for axes in ([0, 1, 3], [0, 1, 2]))
    zero = _constant([[[[0]]]])
    near = ops.greater(columns, ops.add(rows, _constant([[[[-window]]]])))
    mask = ops.bitwise_and(ops.greater_equal(rows, zero), near)
    mask = ops.bitwise_and(mask, ops.less_equal(columns, rows))
    mask = ops.bitwise_and(ops.greater_equal(rows, zero), mask)
    mask = ops.bitwise_and(mask, ops.greater_equal(columns, zero))
    batch = ops.gather(ops.shape_of(query), _constant([0]), _constant(0))
    mask = ops.broadcast(mask, ops.concat([batch, _constant([1]), length, length], 0))
    mask = ops.select(mask, _constant(0, np.float32), _constant(-65504, np.float32))
    return ops.slice(mask, _constant([0]), length, _constant([1]), _constant([3]))


def _with_state(model: Any) -> Any:
    """Puts earlier keys and values in front of each layer's own."""
    assigns = []
    for number, attention in enumerate(_nodes(model, "ScaledDotProductAttention")):
        for name, port in (("key", 1), ("value", 2)):
            target = attention.input(port)
            parts = []
            for _ in range(3):
                parts.append(target.get_source_output().get_node())
                target = parts[-1].input(0)
            if [part.get_type_name() for part in parts] != ["Reshape", "Broadcast", "Unsqueeze"]:
                target = attention.input(port)  # as many key heads as query heads
            new = target.get_source_output()
            shape = new.get_partial_shape()
            heads, width = shape[1].get_length(), shape[3].get_length()
            batch = ops.gather(ops.shape_of(new), _constant([0]), _constant(0))
            start = ops.concat([batch, _constant([heads, 0, width])], 0)
            past = ops.read_value(
                ops.broadcast(_constant(0, np.float32), start),
                f"{name}.{number}",
                ov.Type.f32,
                ov.PartialShape([-1, heads, -1, width]),
            )
            past = ops.gather(past, _constant([0], np.int32), _constant(0))
            whole = ops.concat([past, new], 2)
            target.replace_source_output(whole.output(0))
            assigns.append(ops.assign(whole, f"{name}.{number}"))
    return ov.Model(model.get_results(), assigns, model.get_parameters(), "decoder")


def _paged_windows(model: Any) -> list[int]:
    """The window of each layer, 0 for none, as GenAI will have it."""
    paged = model.clone()
    paged_attention_transformation(paged)
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(paged)
    found = _nodes(paged, "PagedAttentionExtension")
    windows = [node.input_value(PAGED_ATTENTION_WINDOW).get_node() for node in found]
    return [int(window.get_data()) for window in windows]


def _expected_windows(config: Any) -> list[int]:
    count = config.num_hidden_layers
    window = getattr(config, "sliding_window", None) or 0
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * count
    return [window if kind == "sliding_attention" else 0 for kind in kinds]


def _nodes(model: Any, kind: str) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == kind]


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def main() -> int:
    """In a process of its own, so that torch and the original weights leave the memory again."""
    root, dtype, context, target = sys.argv[1:]
    try:
        convert(Path(root), dtype, int(context), Path(target))
    except StartupError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return STARTUP_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())

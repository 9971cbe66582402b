"""Loads the base model of a recipe, and says which device, dtype and attention it chose and why."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train import tiny
from train.chat_template import harmony
from train.errors import InputError
from train.recipe import ModelConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """A base model's address and how to load it; `load_model` may be called again and again."""

    path: str
    """Folder or hub id."""
    revision: str | None
    model_type: str
    device: str
    dtype: str
    attention: str
    dequantise: bool
    """The checkpoint holds MXFP4 experts, which can be served but not trained."""


def resolve(config: ModelConfig, cache: Path) -> Base:
    """Find the base model and settle device, dtype and attention; loads its config, no weights.

    Raises InputError when the model is not there, or cannot be trained with what is asked.
    """
    import torch
    import transformers
    from transformers import AutoConfig

    if not sys.stderr.isatty():  # in a log file a progress bar is one endless line
        transformers.utils.logging.disable_progress_bar()
    path = str(tiny.ensure(cache)) if config.base == "tiny" else config.base
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise InputError(f"model.base: {path} has no config.json, so it is not a model folder.")
    try:
        settings = AutoConfig.from_pretrained(path, revision=config.revision)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise InputError(
            f"model.base: {config.base} could not be loaded ({reason}); give a folder with "
            "config.json, or a hub id that this machine can reach (set HF_TOKEN if it is gated)."
        ) from None
    cuda = torch.cuda.is_available()
    device, why = ("cuda", torch.cuda.get_device_name()) if cuda else ("cpu", "no NVIDIA GPU found")
    log.info("device: %s (%s)", device, why)
    dtype, why = config.dtype, "set by the recipe"
    if dtype == "auto":
        dtype, why = ("bfloat16", "on a GPU") if cuda else ("float32", "exact on any CPU")
    log.info("dtype: %s (%s)", dtype, why)
    attention, why = config.attention, "set by the recipe"
    if attention == "auto":
        if settings.model_type == "gpt_oss":
            attention, why = "eager", "gpt-oss has attention sinks, which sdpa cannot compute"
        else:
            attention, why = "sdpa", "fastest that every machine has"
    log.info("attention: %s (%s)", attention, why)
    quantised = getattr(settings, "quantization_config", None) or {}
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    return Base(
        path=path,
        revision=config.revision,
        model_type=settings.model_type,
        device=device,
        dtype=dtype,
        attention=attention,
        dequantise=method == "mxfp4",
    )


def load_tokenizer(base: Base) -> Any:
    """The base's tokenizer; gpt-oss gets the Harmony template with generation marks."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path, revision=base.revision)
    if base.model_type == "gpt_oss":
        tokenizer.chat_template = harmony()
    if not tokenizer.chat_template:
        raise InputError(
            f"model.base: {base.path} has no chat template; start from its instruct variant."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: Base) -> Any:
    """The base's weights on its device, ready to train packed rows."""
    import torch
    from transformers import AutoModelForCausalLM, Mxfp4Config

    options: dict[str, Any] = {}
    if base.dequantise:
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        base.path,
        revision=base.revision,
        dtype=getattr(torch, base.dtype),
        attn_implementation=base.attention,
        use_safetensors=True,
        **options,
    ).to(base.device)
    if base.model_type == "gpt_oss":
        keep_packed_rows_apart(model)
    return model


def keep_packed_rows_apart(model: Any) -> None:
    """Make gpt-oss attend within each row of a pack.

    Its forward does not hand `position_ids` to the mask builders (transformers 5.23; Mistral, Phi-3
    and Llama do), so eager attention would run across the rows of a pack without a warning. The
    hook builds both masks with them; without restarts in `position_ids` the masks are unchanged.
    """
    from transformers.masking_utils import (
        create_causal_mask,
        create_sliding_window_causal_mask,
    )

    def add_masks(
        decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positions = kwargs.get("position_ids")
        tokens = kwargs.get("input_ids") if not args else args[0]
        if (
            positions is None
            or tokens is None
            or kwargs.get("attention_mask") is not None
            or kwargs.get("past_key_values") is not None
        ):
            return args, kwargs
        mask_inputs = {
            "config": decoder.config,
            # only its shape, dtype and device are read
            "inputs_embeds": decoder.embed_tokens.weight.new_empty((*tokens.shape, 1)),
            "attention_mask": None,
            "past_key_values": None,
            "position_ids": positions,
        }
        masks = {
            "full_attention": create_causal_mask(**mask_inputs),
            "sliding_attention": create_sliding_window_causal_mask(**mask_inputs),
        }
        return args, {**kwargs, "attention_mask": masks}

    model.get_decoder().register_forward_pre_hook(add_masks, with_kwargs=True)

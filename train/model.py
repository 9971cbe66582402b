"""Loads the base model of a recipe, and says which device, dtype and attention it chose and why."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train import tiny
from train.adapter import merge_earlier
from train.attention import choose
from train.chat_template import for_model
from train.errors import InputError, reason
from train.packing import keep_packed_rows_apart
from train.recipe import ModelConfig, Recipe

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
    """Of the weights while they are trained."""
    publish: str
    """Dtype of the weights of the finished model."""
    autocast: bool
    """Matrix products of float32 weights in bfloat16 too."""
    attention: str
    dequantise: bool
    """The checkpoint holds MXFP4 experts, which can be served but not trained."""
    adapter: str | None = None
    """Adapter of an earlier run, merged in whenever the base is loaded."""


def resolve(recipe: Recipe, cache: Path) -> Base:
    """Find the base model and settle device, dtype and attention; loads its config, no weights.

    Raises InputError when the model is not there, or cannot be trained with what is asked.
    """
    import torch
    import transformers

    if not sys.stderr.isatty():  # in a log file a progress bar is one endless line
        transformers.utils.logging.disable_progress_bar()
    config = recipe.model
    path = str(tiny.ensure(cache)) if config.base == "tiny" else config.base
    settings = load_settings(config, path)
    cuda = torch.cuda.is_available()
    device, why = ("cuda", torch.cuda.get_device_name()) if cuda else ("cpu", "no NVIDIA GPU found")
    log.info("device: %s (%s)", device, why)
    dtype, why = (
        choose_dtype(cuda) if config.dtype == "auto" else (config.dtype, "set by the recipe")
    )
    full = recipe.tuning == "full"
    log.info("dtype: %s (%s)%s", dtype, why, "; weights in float32, tuning is full" if full else "")
    attention, why = choose(settings.model_type, device, config.attention)
    log.info("attention: %s (%s)", attention, why)
    dequantise = quantisation(settings) == "mxfp4"
    if dequantise and full:
        raise InputError(
            f"tuning is full, but {config.base} holds its experts in MXFP4, which only adapters "
            "can be trained on top of: set tuning to lora."
        )
    return Base(
        path=path,
        revision=config.revision,
        model_type=settings.model_type,
        device=device,
        # steps of a full fine-tune are smaller than what bfloat16 can add to a weight
        dtype="float32" if full else dtype,
        publish=dtype,
        # of bfloat16 weights a GPU's adapters profit, which are float32; a CPU's do not
        autocast=dtype == "bfloat16" and (cuda or full),
        attention=attention,
        dequantise=dequantise,
        adapter=config.adapter,
    )


def load_settings(config: ModelConfig, path: str) -> Any:
    """The model's own configuration; InputError where it cannot be had."""
    from transformers import AutoConfig

    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise InputError(f"model.base: {path} has no config.json, so it is not a model folder.")
    try:
        return AutoConfig.from_pretrained(path, revision=config.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "custom code" in str(error) or "trust_remote_code" in str(error):
            raise InputError(
                f"model.base: {config.base} asks to run Python code of its own (auto_map in its "
                "config.json), which is never done; take a model that transformers knows."
            ) from None
        raise InputError(
            f"model.base: {config.base} could not be loaded ({reason(error)}); give a folder with "
            "config.json, or a hub id that this machine can reach (set HF_TOKEN if it is gated)."
        ) from None


def choose_dtype(cuda: bool) -> tuple[str, str]:
    """Dtype of the weights, and why."""
    import torch

    if cuda:
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ("bfloat16", "this GPU computes in it")
        return ("float32", "this GPU does not compute in bfloat16")
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return ("bfloat16", "this processor computes in it")
    return ("float32", "this processor does not compute in bfloat16")


def quantisation(settings: Any) -> str | None:
    """How the checkpoint's weights are packed, such as `mxfp4`; None where they are plain."""
    packed = getattr(settings, "quantization_config", None) or {}
    return packed.get("quant_method") if isinstance(packed, dict) else None


def load_tokenizer(base: Base) -> Any:
    """The base's tokenizer, with our own template where we have one for the model's type."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        base.path, revision=base.revision, trust_remote_code=False
    )
    if template := for_model(base.model_type, tokenizer):
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise InputError(
            f"model.base: {base.path} has no chat template; start from its instruct variant."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: Base, *, weights: Path | None = None, four_bit: bool = False) -> Any:
    """The base's weights on its device, ready to train packed rows.

    `weights` is a folder of the same model with other weights. `four_bit` holds the linear layers
    in NF4 (QLoRA, arXiv:2305.14314).
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Mxfp4Config

    options: dict[str, Any] = {}
    if base.dequantise:
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    if four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, base.dtype),
        )
        options["device_map"] = {"": base.device}
    model = AutoModelForCausalLM.from_pretrained(
        weights or base.path,
        revision=None if weights else base.revision,
        dtype=getattr(torch, base.dtype),
        attn_implementation=base.attention,
        use_safetensors=True,
        trust_remote_code=False,
        **options,
    )
    if four_bit:
        stay_trainable(model)
    else:
        model = model.to(base.device)
    if base.adapter and not weights:
        model = merge_earlier(model, base.adapter)
    if base.model_type == "gpt_oss":
        keep_packed_rows_apart(model)
    return model


def stay_trainable(model: Any) -> None:
    """Keep 4-bit layers from being repacked for inference.

    On a CPU with bfloat16 their first evaluation does that (bitsandbytes 0.50), and a training that
    follows would get no gradients through them, with a warning at most.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False

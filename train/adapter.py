"""What is trained: an adapter or all weights, from the recipe.

A target that matches nothing is an error here; peft only warns and trains on without it.
"""

from pathlib import Path
from typing import Any

from train.errors import InputError
from train.recipe import Recipe


def config(model: Any, recipe: Recipe) -> Any:
    """PEFT's LoraConfig for `model`, or None where all weights are trained."""
    if recipe.tuning == "full":
        return None
    from peft import LoraConfig

    names = [name for name, _ in model.named_parameters()]
    for target in recipe.lora.target_parameters:
        if not any(name.endswith(f".{target}") for name in names):
            raise InputError(
                f"lora.target_parameters: {target} matches no parameter of {recipe.model.base}; "
                "for gpt-oss give mlp.experts.gate_up_proj and mlp.experts.down_proj, else none."
            )
    modules = recipe.lora.target_modules
    for target in modules if isinstance(modules, list) else []:
        if not any(f".{target}." in f".{name}" for name in names):
            raise InputError(
                f"lora.target_modules: {target} matches no module of {recipe.model.base}; "
                "all-linear adapts every linear one."
            )
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=modules,
        target_parameters=recipe.lora.target_parameters or None,
        task_type="CAUSAL_LM",
    )


def merge_earlier(model: Any, adapter: str) -> Any:
    """`model` with the adapter of an earlier run merged into its weights."""
    from peft import PeftModel

    if not (Path(adapter) / "adapter_config.json").is_file():
        raise InputError(
            f"model.adapter: {adapter} has no adapter_config.json; give the adapter/ folder of a "
            "finished run, such as outputs/tiny-ja/latest/adapter."
        )
    if not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise InputError(
            f"model.adapter: {adapter} has no adapter_model.safetensors; only safetensors are "
            "loaded, since other formats can run code."
        )
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"model.adapter: {adapter} does not fit model.base ({reason}); it must have been "
            "trained on the same base."
        ) from None

"""LoRA supervised fine-tuning with TRL, configured from the recipe.

    adapter = train_adapter(model, tokenizer, Path("rows.parquet"), recipe, device, run_folder)

Loss is on the last assistant turn of a row only: rows are handed over as prompt and completion, and
`assistant_only_loss` masks what the template adds around the answer. The settings below that no
recipe can change are there because another value trains something else without a warning.
"""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from train.errors import InputError
from train.recipe import Recipe

log = logging.getLogger(__name__)

CACHE = "cache"
"""Folder beside the rows for what the libraries keep while they train."""


def train_adapter(
    model: Any, tokenizer: Any, rows: Path, recipe: Recipe, device: str, run: Path
) -> dict[str, Any]:
    """Train on `rows` (Parquet of messages), write `run/adapter`, and return what was measured."""
    from transformers import PrinterCallback
    from trl import SFTTrainer

    started = time.monotonic()
    trainer = SFTTrainer(
        model,
        arguments(recipe, device, run),
        train_dataset=prompt_completion(rows, recipe),
        processing_class=tokenizer,
        peft_config=lora(model, recipe),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(progress())
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    log.info(
        "training: %s trainable parameters, %s packs", f"{trainable:,}", len(trainer.train_dataset)
    )
    result = trainer.train()
    trainer.model.save_pretrained(run / "adapter")
    shutil.rmtree(rows.parent / CACHE, ignore_errors=True)
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return {
        "steps": result.global_step,
        "trainable_parameters": trainable,
        "seconds": round(time.monotonic() - started, 1),
        "tokens": int(trainer.state.num_input_tokens_seen),
        "first_loss": round(losses[0], 6),
        "last_loss": round(losses[-1], 6),
    }


def prompt_completion(rows: Path, recipe: Recipe) -> Any:
    """The rows as TRL's prompt-completion form, with the pinned date for the template."""
    from datasets import load_dataset

    def split(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "prompt": row["messages"][:-1],
            "completion": row["messages"][-1:],
            "chat_template_kwargs": {"current_date": recipe.data.current_date},
        }

    cache = str(rows.parent / CACHE)
    dataset = load_dataset("parquet", data_files=str(rows), split="train", cache_dir=cache)
    return dataset.map(split, remove_columns=["messages"])


def lora(model: Any, recipe: Recipe) -> Any:
    """PEFT's LoraConfig; InputError when an expert parameter that the recipe names is not there.

    PEFT only warns in that case and trains on without the experts.
    """
    from peft import LoraConfig

    names = [name for name, _ in model.named_parameters()]
    for target in recipe.lora.target_parameters:
        if not any(name.endswith(f".{target}") for name in names):
            raise InputError(
                f"lora.target_parameters: {target} matches no parameter of {recipe.model.base}; "
                "for gpt-oss give mlp.experts.gate_up_proj and mlp.experts.down_proj, else none."
            )
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=recipe.lora.target_modules,
        target_parameters=recipe.lora.target_parameters or None,
        task_type="CAUSAL_LM",
    )


def arguments(recipe: Recipe, device: str, run: Path) -> Any:
    """TRL's SFTConfig for the recipe."""
    from trl import SFTConfig

    training = recipe.training
    cosine = training.scheduler == "cosine"
    return SFTConfig(
        output_dir=str(run),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=training.logging_steps,
        logging_first_step=True,
        include_num_input_tokens_seen="all",
        seed=training.seed,
        use_cpu=device == "cpu",
        bf16=device == "cuda",
        num_train_epochs=training.epochs,
        max_steps=training.max_steps,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        adam_beta2=training.adam_beta2,
        lr_scheduler_type="cosine_with_min_lr" if cosine else training.scheduler,
        lr_scheduler_kwargs={"min_lr_rate": 0.1} if cosine else None,
        max_length=training.max_length,
        packing=training.packing,
        packing_strategy="bfd",
        # one pack per micro-batch: two would be flattened into one of quadratic cost
        per_device_train_batch_size=1,
        gradient_accumulation_steps=training.packs_per_step,
        assistant_only_loss=True,
        activation_checkpointing=training.gradient_checkpointing,
        # reentrant checkpointing breaks distributed training of adapters
        activation_checkpointing_kwargs={"use_reentrant": False},
        ddp_find_unused_parameters=False,
        # released gpt-oss configs carry 0.9, which would train the adapter to balance routing
        router_aux_loss_coef=0.0,
    )


def progress() -> Any:
    """A callback that logs one line per logging step: loss, rate, tokens/s and the time left."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]  # transformers ships no types for it
        def __init__(self) -> None:
            self.started = time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.started = time.monotonic()

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            if not logs or "loss" not in logs:
                return
            passed = time.monotonic() - self.started
            left = passed / state.global_step * (state.max_steps - state.global_step)
            log.info(
                "step %d/%d  loss %.4f  learning rate %.2e  %s tokens/s  %.0f s left",
                state.global_step,
                state.max_steps,
                logs["loss"],
                logs["learning_rate"],
                f"{state.num_input_tokens_seen / passed:,.0f}",
                left,
            )

    return Progress()

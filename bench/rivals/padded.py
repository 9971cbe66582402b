"""What most published recipes do: padded batches, no packing, eager attention, float32.

Gradient checkpointing is off, which makes this side the faster.
"""

from bench.rivals.task import ADAPTED, answer, read


def main() -> None:
    task, folder = read()
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(
            task.base, dtype=torch.float32, attn_implementation="eager"
        ),
        SFTConfig(
            output_dir=str(folder),
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            num_train_epochs=task.epochs,
            learning_rate=task.learning_rate,
            lr_scheduler_type="linear",
            max_length=task.longest,
            per_device_train_batch_size=task.batch,
            gradient_checkpointing=False,
            router_aux_loss_coef=0.0,
            seed=task.seed,
        ),
        train_dataset=Dataset.from_parquet(str(task.rows)),
        processing_class=AutoTokenizer.from_pretrained(task.base),
        peft_config=LoraConfig(
            r=task.rank,
            lora_alpha=task.alpha,
            target_modules=list(ADAPTED),
            task_type="CAUSAL_LM",
        ),
    )
    metrics = trainer.train().metrics
    trainer.model.save_pretrained(folder / "adapter")
    answer(seconds=metrics["train_runtime"])


if __name__ == "__main__":
    main()

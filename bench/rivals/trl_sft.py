"""`trl sft`, TRL's own command line, with its defaults where the task does not say otherwise.

Its defaults are batches of eight, no packing, bfloat16 autocast and gradient checkpointing.
"""

import re
import subprocess
import sys
from pathlib import Path

from bench.rivals.task import ADAPTED, Task, answer, read


def main() -> None:
    task, folder = read()
    done = subprocess.run(command(task, folder), capture_output=True, text=True)
    # the metrics of the end, as the Trainer prints them
    seconds = re.findall(r"'train_runtime': '?([0-9.]+)", done.stdout)
    if done.returncode or not seconds:
        sys.exit(done.stderr[-2000:])
    answer(seconds=float(seconds[-1]))


def command(task: Task, folder: Path) -> list[str]:
    options = {
        "model_name_or_path": task.base,
        "dataset_name": task.rows.parent,
        "output_dir": folder / "adapter",
        "num_train_epochs": task.epochs,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "linear",
        "seed": task.seed,
        "max_length": task.longest,
        "per_device_train_batch_size": task.batch,
        "lora_r": task.rank,
        "lora_alpha": task.alpha,
        "lora_dropout": 0.0,
        "report_to": "none",
        "use_cpu": True,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    trl = Path(sys.executable).with_name("trl")
    return [str(trl), "sft", *words, "--use_peft", "--lora_target_modules", *ADAPTED]


if __name__ == "__main__":
    main()

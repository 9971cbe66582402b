"""LLaMA-Factory, in a virtual environment of its own, with the values of its LoRA examples.

Those are one document per micro-batch, eight micro-batches per step, bfloat16 autocast, gradient
checkpointing and no packing. It pins other versions of transformers, peft and TRL than this
project; torch it gets from this project's environment, so that both compute with the same kernels.
"""

import json
from pathlib import Path

from bench.rivals import environment
from bench.rivals.task import ADAPTED, Task
from bench.table import child

VERSION = "0.9.5"
FROM_HERE = ("torch", "torchvision", "torchaudio")
"""Not installed: torch is this project's, and the other two are for pictures and sound.

Their builds must match torch's to the letter, which those of most indexes do not.
"""
RUN = """
import sys
sys.argv = ["llamafactory-cli", "train", sys.argv[1]]
from llamafactory.cli import main
main()
print("{}")
"""


def ensure(cache: Path) -> Path:
    """Python of the environment below `cache`, made if it is not there yet (1 GB)."""
    folder = cache / f"bench-llamafactory-{VERSION}"
    python = environment.ensure(folder, f"llamafactory=={VERSION}", excluded=FROM_HERE)
    # imported at once, used for sound only
    (environment.packages(folder) / "torchaudio.py").touch()
    return python


def train(
    task: Task, folder: Path, env: dict[str, str], cache: Path
) -> tuple[dict[str, float], int]:
    """Run it: ({"seconds"}, peak bytes). UnavailableError, or ChildError as `child`."""
    python = ensure(cache)
    folder.mkdir(parents=True)
    adapter = folder / "adapter"
    options = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(task.base),
        "dataset": "named but not read, because of the next",
        "tokenized_path": str(task.tokenized),
        "template": "default",
        "cutoff_len": task.longest,
        "finetuning_type": "lora",
        "lora_rank": task.rank,
        "lora_alpha": task.alpha,
        "lora_target": ",".join(ADAPTED),
        "output_dir": str(adapter),
        "save_strategy": "no",
        "report_to": "none",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": task.batch,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "linear",
        "num_train_epochs": task.epochs,
        "bf16": True,
        "use_cpu": True,
        "seed": task.seed,
    }
    settings = folder / "settings.yaml"  # JSON is YAML too
    settings.write_text(json.dumps(options), encoding="utf-8")
    _, peak = child(RUN, [str(settings)], env, python=str(python))
    state = json.loads((adapter / "trainer_state.json").read_text(encoding="utf-8"))
    end = state["log_history"][-1]
    return {"seconds": end["train_runtime"]}, peak

"""LLaMA-Factory, in a virtual environment of its own, with the values of its LoRA examples.

Those are one document per micro-batch, eight micro-batches per step, bfloat16 autocast, gradient
checkpointing and no packing. It pins other versions of transformers, peft and TRL than this
project; torch it gets from this project's environment, so that both compute with the same kernels.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

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


class UnavailableError(Exception):
    """LLaMA-Factory cannot be installed here; the text says why, in one line."""


def ensure(cache: Path) -> Path:
    """Python of the environment below `cache`, made if it is not there yet (1 GB)."""
    folder = cache / f"bench-llamafactory-{VERSION}"
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = str(Path(sys.executable).with_name("uv"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
    excluded = folder / "excluded.txt"
    excluded.write_text("\n".join(FROM_HERE) + "\n", encoding="utf-8")
    install = ["pip", "install", "--quiet", "--python", str(python), "--excludes", str(excluded)]
    _run([uv, *install, f"llamafactory=={VERSION}"])
    packages = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    # read last, so what LLaMA-Factory brought goes before
    (packages / "homeport.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    # imported at once, used for sound only
    (packages / "torchaudio.py").touch()
    (folder / "ready").touch()
    return python


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UnavailableError(f"{command[0]} is not installed") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise UnavailableError(f"{' '.join(command[1:3])} ended with {done.returncode}: {said}")


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

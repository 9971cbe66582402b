"""One of several processes that train together, for tests/train/test_distributed.py.

    RANK=0 LOCAL_RANK=0 WORLD_SIZE=2 … python -m tests.train.worker KIND RECIPE ROWS RUN

KIND is `ddp`, `fsdp2`, or `reentrant`: what transformers does with peft models where nobody
chooses. FSDP2 has a CPU backend in torch, but accelerate picks it only for GPUs; hence the patch.
"""

import sys
from pathlib import Path
from typing import Any


def shard_on_cpu() -> None:
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    initialise = PartialState.__init__

    def as_gpu(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = as_gpu


def let_checkpointing_be_reentrant() -> None:
    from train import trainer

    arguments = trainer.arguments

    def careless(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {
            **arguments(*args, **kwargs),
            "activation_checkpointing_kwargs": {"use_reentrant": True},
            "ddp_find_unused_parameters": None,
        }

    trainer.arguments = careless


def main(kind: str, recipe_file: str, rows: str, run: str) -> None:
    from train import distributed, interruption, model, sft
    from train.recipe import load

    recipe = load(recipe_file, environ={})
    if kind == "fsdp2":
        shard_on_cpu()
    if kind == "reentrant":
        let_checkpointing_be_reentrant()
    distributed.start(cpu=True)
    with interruption.caught() as stop:
        base = model.resolve(recipe, Path("unused"))
        tokenizer = model.load_tokenizer(base)
        network = model.load_model(base)
        measured = sft.train(
            network,
            tokenizer,
            Path(rows),
            None,
            recipe,
            base,
            Path(run),
            stop,
            [],
        )
    if distributed.is_main():
        print(measured["last_loss"])
    distributed.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])

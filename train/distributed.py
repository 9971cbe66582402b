"""Several processes that train one model: what each must know of the others.

The environment says it, as Azure ML's PyTorch distribution and torchrun set it: RANK, LOCAL_RANK,
WORLD_SIZE, NODE_RANK, MASTER_ADDR and MASTER_PORT. Without them there is one process. The process
of rank 0 is the main one; it alone writes into the run's folder.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any

PATIENCE = datetime.timedelta(hours=6)
"""How long a process waits for another: the main one evaluates and converts while others wait."""


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def node() -> int:
    """Which machine this is: torchrun calls it GROUP_RANK, Azure ML NODE_RANK."""
    return int(os.environ.get("GROUP_RANK") or os.environ.get("NODE_RANK") or "0")


def is_main() -> bool:
    return rank() == 0


def start(cpu: bool) -> None:
    """Meet the other processes and take this process's own GPU; nothing where there is only one."""
    if processes() > 1:
        from accelerate import PartialState

        PartialState(cpu=cpu, timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes, so that one may work on alone or end."""
    if processes() > 1:
        import torch.distributed

        torch.distributed.destroy_process_group()


def wait() -> None:
    """Go on when every process has come here."""
    if processes() > 1:
        import torch.distributed

        torch.distributed.barrier()


@contextlib.contextmanager
def first_on_each_machine() -> Iterator[None]:
    """The first process of each machine does the block alone, then the others find it done."""
    if local_rank():
        wait()
    yield
    if not local_rank():
        wait()


def from_main(value: Any) -> Any:
    """The main process's `value`, in every process."""
    if processes() == 1:
        return value
    import torch.distributed

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def mean(value: Any) -> float:
    """Mean of a scalar tensor over the processes."""
    if processes() > 1:
        import torch.distributed

        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= processes()
    return float(value)


def any_of(flag: bool, device: Any) -> bool:
    """Whether `flag` holds in any process; all must ask at the same point."""
    if processes() == 1:
        return flag
    import torch

    total = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(total)
    return bool(total.item())

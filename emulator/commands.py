"""The command line of a job: what stands for its inputs and outputs in it, and who runs it.

`${{inputs.x}}` and `${{outputs.x}}` become paths or values, as text, without quotes of their own.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emulator.http import Refusal

PLACEHOLDER = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
DURATION = re.compile(
    r"P(?:(\d+(?:\.\d+)?)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)


def check(command: str, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Refusal 400 where the command names what the job does not have."""
    known = {f"inputs.{name}" for name in inputs} | {f"outputs.{name}" for name in outputs}
    for name in PLACEHOLDER.findall(command):
        if name not in known:
            raise Refusal(
                400,
                "UserError",
                f"The command refers to ${{{{{name}}}}}, which the job does not define. "
                f"It defines: {', '.join(sorted(known)) or 'nothing'}.",
            )


def fill(command: str, values: Mapping[str, str]) -> str:
    """The command with `values` by `inputs.x` and `outputs.x` put in."""
    return PLACEHOLDER.sub(lambda found: values[found[1]], command)


def seconds_of(duration: str) -> float:
    """Seconds of an ISO 8601 duration in days and smaller; Refusal 400 where it is none."""
    found = DURATION.fullmatch(duration)
    if not found or not any(found.groups()):
        raise Refusal(400, "UserError", f"{duration} is no ISO 8601 duration of days and less.")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@dataclass(frozen=True, slots=True)
class Process:
    """One of the processes that a job runs at the same time."""

    rank: int
    environment: Mapping[str, str]
    log: str
    """Its log among the job's artifacts."""


def processes(properties: Mapping[str, Any], master_port: int) -> Iterator[Process]:
    """A command runs once, and with PyTorch's distribution once per GPU that the job asks for.

    Variables as Azure sets them (how-to-train-distributed-gpu). Refusal 501 for other frameworks.
    """
    distribution = properties.get("distribution")
    instances = int((properties.get("resources") or {}).get("instanceCount") or 1)
    if not distribution:
        if instances > 1:
            raise Refusal(501, "NotEmulated", "Several nodes are run with PyTorch's distribution.")
        yield Process(0, {}, "user_logs/std_log.txt")
        return
    if str(distribution.get("distributionType", "")).lower() != "pytorch":
        raise Refusal(501, "NotEmulated", "Of distributions only PyTorch's is run here.")
    per_instance = int(distribution.get("processCountPerInstance") or 1)
    world = instances * per_instance
    for rank in range(world):
        environment = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(master_port),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(per_instance),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % per_instance),
            "NODE_RANK": str(rank // per_instance),
            "AZUREML_NODE_COUNT": str(instances),
        }
        log = f"user_logs/std_log_process_{rank}.txt" if world > 1 else "user_logs/std_log.txt"
        yield Process(rank, environment, log)

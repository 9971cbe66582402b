"""The checks in the order in which they are told: this machine, its images, then Azure."""

from collections.abc import Sequence

from scripts.doctor import Check
from scripts.doctor.checks import (
    buildx,
    compose,
    disk,
    engine,
    gpu,
    images,
    line_endings,
    login,
    machines,
    memory,
    ownership,
    ports,
    pull_role,
    python,
    quota,
    registry,
    remote_gpu,
    retirement,
    runtime,
)

ALL: Sequence[Check] = (
    python.check,
    engine.check,
    compose.check,
    buildx.check,
    runtime.check,
    disk.check,
    memory.check,
    gpu.check,
    ports.check,
    ownership.check,
    line_endings.check,
    images.check,
    retirement.check,
    remote_gpu.check,
    login.check,
    machines.check,
    quota.check,
    registry.check,
    pull_role.check,
)

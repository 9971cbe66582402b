"""The sizes of machines that the region has, with what a client chooses them by.

Cores, memory and GPUs are those of Azure's published lists (azure/prices.yml names them); the disk
of a node is set alike for all of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """One size."""

    name: str
    family: str
    """Whose cores count against the quota."""
    cores: int
    memory_gb: int
    gpus: int = 0


MACHINES = (
    Machine("Standard_DS3_v2", "standardDSv2Family", 4, 14),
    Machine("Standard_DS12_v2", "standardDSv2Family", 4, 28),
    Machine("Standard_D12_v2", "standardDv2Family", 4, 28),
    Machine("Standard_E4s_v3", "standardESv3Family", 4, 32),
    Machine("Standard_F4s_v2", "standardFSv2Family", 4, 8),
    Machine("Standard_NC4as_T4_v3", "standardNCASv3_T4Family", 4, 28, 1),
    Machine("Standard_NC16as_T4_v3", "standardNCASv3_T4Family", 16, 110, 1),
    Machine("Standard_NC64as_T4_v3", "standardNCASv3_T4Family", 64, 440, 4),
    Machine("Standard_NC6s_v3", "standardNCSv3Family", 6, 112, 1),
    Machine("Standard_NC12s_v3", "standardNCSv3Family", 12, 224, 2),
    Machine("Standard_NC24s_v3", "standardNCSv3Family", 24, 448, 4),
    Machine("Standard_NC24rs_v3", "standardNCSv3Family", 24, 448, 4),
    Machine("Standard_ND40rs_v2", "standardNDSv2Family", 40, 672, 8),
    Machine("Standard_NV36ads_A10_v5", "standardNVADSA10v5Family", 36, 440, 1),
    Machine("Standard_NV72ads_A10_v5", "standardNVADSA10v5Family", 72, 880, 2),
    Machine("Standard_NC24ads_A100_v4", "standardNCADSA100v4Family", 24, 220, 1),
    Machine("Standard_NC48ads_A100_v4", "standardNCADSA100v4Family", 48, 440, 2),
    Machine("Standard_NC96ads_A100_v4", "standardNCADSA100v4Family", 96, 880, 4),
    Machine("Standard_ND96asr_v4", "standardNDASv4_A100Family", 96, 900, 8),
    Machine("Standard_ND96amsr_A100_v4", "standardNDAMSv4_A100Family", 96, 1800, 8),
    Machine("Standard_NC40ads_H100_v5", "standardNCADSH100v5Family", 40, 320, 1),
    Machine("Standard_NC80adis_H100_v5", "standardNCADSH100v5Family", 80, 640, 2),
    Machine("Standard_ND96isr_H100_v5", "standardNDSH100v5Family", 96, 1900, 8),
    Machine("Standard_ND96isr_H200_v5", "standardNDISRH200V5Family", 96, 1850, 8),
)
LIMIT = 200
"""Cores of quota that each family has here; Azure's own differ by subscription."""


def find(name: str) -> Machine | None:
    """The machine of that name, whose case does not matter."""
    return next((one for one in MACHINES if one.name.lower() == name.lower()), None)

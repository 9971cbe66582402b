"""The region's machines are those that the project knows prices of."""

from typing import Any

import pytest
import yaml

from emulator import machines
from tests.tree import ROOT

PRICES: dict[str, Any] = yaml.safe_load((ROOT / "azure" / "prices.yml").read_text())["instances"]


@pytest.mark.parametrize("machine", machines.MACHINES, ids=lambda machine: machine.name)
def test_a_machine_has_what_its_price_names(machine: machines.Machine) -> None:
    if machine.name not in PRICES:
        pytest.skip("has no price")
    priced = PRICES[machine.name]
    assert machine.cores == priced["cores"]
    assert machine.memory_gb == priced["memory_gib"]
    assert machine.gpus == priced.get("gpus", 0)
    assert machine.family == priced["family"]


def test_a_machine_is_found_whatever_its_case() -> None:
    found = machines.find("standard_nc24rs_v3")
    assert found
    assert (found.name, found.gpus) == ("Standard_NC24rs_v3", 4)
    assert machines.find("Standard_H100") is None

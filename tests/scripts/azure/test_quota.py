"""Cores are counted as Azure counts them, and found under any spelling of their family."""

from typing import Any
from unittest.mock import Mock

import pytest

from scripts.azure import prices, quota
from scripts.errors import CloudError
from train.recipe import CloudConfig

CPU = prices.find("Standard_DS3_v2")
H100 = prices.find("Standard_NC40ads_H100_v5")


def usage(value: str, limit: int, used: int = 0, localized: str = "") -> dict[str, Any]:
    name = {"value": value, "localizedValue": localized or value}
    return {"name": name, "limit": limit, "currentValue": used}


def asked(usages: list[dict[str, Any]] | Exception, **settings: Any) -> tuple[quota.Quota, ...]:
    """The quota of a job on the H100 and an endpoint on the CPU, where Azure says `usages`."""
    cloud = Mock()
    cloud.rest.all = Mock(side_effect=[usages])
    return quota.needed(CloudConfig(**settings), H100, CPU, cloud)


@pytest.mark.parametrize(
    "entry",
    [
        usage("standardNCADSH100v5Family", 80, 20),
        usage("StandardNCadsH100v5Family", 80, 20),
        usage("x", 80, 20, "Standard NCADSH100v5 Family Cluster Dedicated vCPUs"),
    ],
)
def test_a_family_is_found_however_azure_writes_it(entry: dict[str, Any]) -> None:
    train, _ = asked([usage("standardDSv2Family", 10), entry])
    assert (train.cores, train.limit, train.used, train.enough) == (40, 80, 20, True)


def test_too_few_cores_are_said_with_what_to_do() -> None:
    train, deploy = asked(
        [usage("standardNCADSH100v5Family", 80, 41), usage("standardDSv2Family", 8, 0)]
    )
    assert train.enough is False
    assert "only 39 of 80 are free: ask for more" in quota.line(train)
    assert deploy.enough is True
    assert quota.line(deploy).endswith("a fifth for upgrades, rounded up); 8 of 8 are free")


def test_low_priority_machines_count_against_their_own_cores() -> None:
    train, deploy = asked(
        [
            usage("standardNCADSH100v5Family", 0),
            usage("Total Cluster Low Priority Regional vCPUs", 100, 30),
            usage("standardDSv2Family", 8),
        ],
        spot=True,
        nodes=2,
    )
    assert (train.cores, train.limit, train.enough) == (80, 100, False)
    assert deploy.limit == 8


def test_a_share_of_a_workspace_does_not_hide_the_whole() -> None:
    train, _ = asked([usage("standardNCADSH100v5Family", n) for n in (0, 120, 40)])
    assert train.limit == 120


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "Azure lists no such family here"),
        (CloudError("no role for that."), "Azure does not say: no role for that."),
    ],
)
def test_what_azure_does_not_say_is_not_guessed(answer: Any, said: str) -> None:
    for found in asked(answer):
        assert found.enough is None
        assert quota.line(found).endswith(said)


def test_nobody_is_asked_without_a_workspace() -> None:
    for found in quota.needed(CloudConfig(), H100, CPU, None):
        assert quota.line(found).endswith("not asked (offline)")

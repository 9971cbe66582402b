from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scripts.azure import jobs, prices
from scripts.azure.billing import (
    Compute,
    Inventory,
    Job,
    bill,
    cost,
    duration,
    read_compute,
    read_job,
    survey,
    total,
)
from scripts.azure.openai import inventory as openai
from scripts.azure.openai.inventory import Hosted, Running
from scripts.errors import CloudError
from tests.scripts.azure.stand_ins import cloud_of
from tests.scripts.azure.test_splits import deployment, endpoint

NOW = datetime(2026, 11, 21, 14, tzinfo=UTC)
"""Two hours after the deployments of test_splits were made."""
H100 = "Standard_NC40ads_H100_v5"
CPU = "Standard_DS3_v2"


def job(**more: Any) -> Job:
    return Job(
        **{
            "name": "geo-1",
            "status": "Running",
            "tags": {"homeport": "1"},
            "compute": "",
            "instance_type": H100,
            "nodes": 1,
            "spot": False,
            "limit": timedelta(hours=4),
            "created": NOW - timedelta(hours=1),
            "started": NOW - timedelta(minutes=30),
            "ended": None,
            "studio": "",
            **more,
        }
    )


def cluster(**more: Any) -> Compute:
    return Compute(
        **{
            "name": "gpu",
            "kind": "AmlCompute",
            "state": "Succeeded",
            "size": H100,
            "spot": False,
            "nodes": 0,
            "most": 2,
            "least": 0,
            "tags": {"homeport": "1"},
            **more,
        }
    )


def hosted(**more: Any) -> Hosted:
    return Hosted(
        **{
            "name": "mine/geo-1",
            "model": "gpt-4.1-mini.ft-1",
            "sku": "Standard",
            "ours": True,
            "since": NOW - timedelta(hours=2),
            "per_hour": 1.7,
            "resource": "/subscriptions/s/accounts/mine",
            **more,
        }
    )


def tuning(**more: Any) -> Running:
    return Running(
        **{
            "job": "ftjob-1",
            "resource": "/subscriptions/s/accounts/mine",
            "model": "gpt-4.1-mini",
            "status": "running",
            "ours": True,
            "since": NOW - timedelta(hours=1),
            **more,
        }
    )


def rate(name: str) -> float:
    found = prices.find(name).per_hour
    assert found
    return found


def inventory(**more: Any) -> Inventory:
    return Inventory(**{"endpoints": (), "jobs": (), "computes": (), **more})


def test_an_empty_workspace_bills_nothing() -> None:
    found = bill(inventory(endpoints=(endpoint(),), computes=(cluster(),)), NOW)
    assert (found.charges, found.per_hour, found.accrued) == ((), 0, 0)


def test_a_deployment_bills_since_it_was_made_with_traffic_or_without() -> None:
    there = endpoint(
        deployment("blue-1", 100, instances=2), deployment("green-2", minutes=60, state="Failed")
    )
    found = bill(inventory(endpoints=(there,)), NOW)
    assert [c.name for c in found.charges] == ["geo/blue-1", "geo/green-2"]
    assert found.per_hour == pytest.approx(3 * rate(CPU))
    assert found.accrued == pytest.approx((2 * 2 + 1) * rate(CPU))


@pytest.mark.parametrize("status", ["Completed", "Failed", "Canceled"])
def test_a_finished_job_does_not_bill(status: str) -> None:
    assert not bill(inventory(jobs=(job(status=status),)), NOW).charges


def test_a_queued_job_does_not_bill_and_a_running_one_bills_since_it_began() -> None:
    queued = job(status="Queued", started=None)
    found = bill(inventory(jobs=(queued, job(nodes=2))), NOW)
    (charge,) = found.charges
    assert charge.per_hour == pytest.approx(2 * rate(H100))
    assert charge.accrued == pytest.approx(rate(H100))


def test_a_preparing_job_bills_though_nobody_knows_since_when() -> None:
    (charge,) = bill(inventory(jobs=(job(status="Preparing", started=None),)), NOW).charges
    assert charge.per_hour == pytest.approx(rate(H100))
    assert charge.accrued is None


def test_a_clusters_nodes_are_not_counted_twice_with_their_job() -> None:
    on_it = job(compute="gpu", instance_type="", nodes=1)
    found = bill(inventory(jobs=(on_it,), computes=(cluster(nodes=2),)), NOW)
    assert [(c.what, c.count, c.instance_type) for c in found.charges] == [
        ("job", 1, H100),
        ("compute", 1, H100),
    ]
    assert found.per_hour == pytest.approx(2 * rate(H100))


def test_only_ours_is_in_our_bill() -> None:
    foreign = replace(endpoint(deployment("blue-1", tags={})), tags={}, name="theirs")
    found = bill(inventory(endpoints=(foreign,), computes=(cluster(nodes=1, tags={}),)), NOW)
    assert len(found.charges) == 2
    assert found.ours().charges == ()


def test_an_untagged_deployment_of_our_endpoint_is_ours_to_pay() -> None:
    there = endpoint(deployment("made-by-hand", tags={}))
    assert len(bill(inventory(endpoints=(there,)), NOW).ours().charges) == 1


def test_a_machine_without_a_price_is_named_and_not_counted_as_free() -> None:
    there = endpoint(deployment("blue-1", instance_type="Standard_Unheard_v9"))
    found = bill(inventory(endpoints=(there,)), NOW)
    assert found.unknown == ["Standard_Unheard_v9"]
    assert found.charges[0].per_hour is None
    assert total(there.deployments) is None


def test_spot_takes_its_own_price_and_the_full_one_where_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = prices.find(H100)
    monkeypatch.setattr(prices, "find", lambda name: replace(known, spot_per_hour=1.5))
    assert prices.per_hour(H100, spot=True) == 1.5
    monkeypatch.setattr(prices, "find", lambda name: replace(known, spot_per_hour=None))
    assert prices.per_hour(H100, spot=True) == known.per_hour


def test_a_cost_is_never_negative_and_unknown_without_its_parts() -> None:
    assert cost(2.0, NOW - timedelta(minutes=90), NOW) == pytest.approx(3.0)
    assert cost(2.0, NOW + timedelta(minutes=1), NOW) == 0
    assert cost(None, NOW, NOW) is None
    assert cost(2.0, None, NOW) is None


def test_what_stays_is_the_sum_without_what_goes() -> None:
    blue, green = deployment("blue-1"), deployment("green-2", instances=2)
    assert total([blue, green]) == pytest.approx(3 * rate(CPU))
    assert total([blue, green], without=[green]) == pytest.approx(rate(CPU))


@pytest.mark.parametrize(
    ("text", "hours"), [("PT4H", 4), ("P1DT30M", 24.5), ("PT90S", 0.025), ("", None), ("4h", None)]
)
def test_limits_are_read_as_azure_writes_them(text: str, hours: float | None) -> None:
    found = duration(text)
    assert (found.total_seconds() / 3600 if found else None) == hours


def test_a_job_is_read_of_the_services_json() -> None:
    found = read_job(
        {
            "name": "geo-1",
            "systemData": {"createdAt": "2026-11-21T13:00:00.1234567+00:00"},
            "properties": {
                "jobType": "Command",
                "status": "Queued",
                "computeId": None,
                "tags": {"homeport": "1"},
                "resources": {"instanceCount": 2, "instanceType": H100},
                "queueSettings": {"jobTier": "Spot"},
                "limits": {"jobLimitsType": "Command", "timeout": "PT4H"},
                "services": {"Studio": {"endpoint": "https://ml.azure.com/runs/geo-1"}},
            },
        }
    )
    assert (found.nodes, found.instance_type, found.spot, found.compute) == (2, H100, True, "")
    assert found.limit == timedelta(hours=4)
    assert found.created == datetime(2026, 11, 21, 13, 0, 0, 123456, tzinfo=UTC)
    assert found.ours and found.running


def test_a_pipeline_job_without_resources_is_read_too() -> None:
    bare = {"name": "p", "properties": {"jobType": "Pipeline", "status": "Completed", "tags": None}}
    found = read_job(bare)
    assert (found.ours, found.running, found.nodes, found.created) == (False, False, 1, None)


def test_a_cluster_and_an_instance_are_read_with_the_nodes_that_bill() -> None:
    properties = {
        "computeType": "AmlCompute",
        "provisioningState": "Succeeded",
        "properties": {
            "vmSize": H100,
            "vmPriority": "LowPriority",
            "currentNodeCount": 1,
            "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 4},
        },
    }
    found = read_compute({"name": "gpu", "tags": {"homeport": "1"}, "properties": properties})
    assert (found.nodes, found.least, found.most, found.spot, found.ours) == (1, 0, 4, True, True)
    for state, nodes in (("Running", 1), ("Stopped", 0)):
        instance = {"computeType": "ComputeInstance", "properties": {"vmSize": CPU, "state": state}}
        assert read_compute({"name": "mine", "properties": instance}).nodes == nodes


def test_a_hosted_model_of_azure_openai_bills_since_it_stands_there() -> None:
    free = hosted(name="mine/free", per_hour=0.0, sku="DeveloperTier")
    unknown = hosted(name="mine/new", per_hour=None)
    found = bill(inventory(hosted=(hosted(), free, unknown), tuning=(tuning(),)), NOW)
    assert [(c.what, c.name) for c in found.charges] == [
        ("openai", "mine/geo-1"),
        ("openai", "mine/new"),
    ]
    assert found.per_hour == pytest.approx(1.7)
    assert found.accrued == pytest.approx(3.4)
    assert found.unknown == ["gpt-4.1-mini.ft-1, Standard"]


@pytest.mark.parametrize(
    ("properties", "machine"),
    [
        ({"resources": {"instanceTypes": [H100, CPU]}}, (H100, 1, False, "")),
        ({"settings": {"default_compute": "/subscriptions/s/computes/gpu"}}, ("", 1, False, "gpu")),
        ({"settings": {"default_compute": "serverless"}}, ("", 1, False, "")),
        ({"tags": {"homeport-machine": f"2 x {H100} spot"}}, (H100, 2, True, "")),
        (
            {"computeId": "/s/computes/gpu", "tags": {"homeport-machine": "x"}},
            ("", 1, False, "gpu"),
        ),
    ],
)
def test_the_machine_of_any_kind_of_job_is_read(
    properties: dict[str, Any], machine: tuple[str, int, bool, str]
) -> None:
    found = read_job({"name": "p", "properties": properties})
    assert (found.instance_type, found.nodes, found.spot, found.compute) == machine


def test_the_tag_of_a_machine_is_read_back() -> None:
    read = jobs.machine({"tags": jobs.machine_tag(H100, 4, spot=True)})
    assert read == jobs.Machine(instance=H100, nodes=4, spot=True, compute="")


def test_where_azure_openai_refuses_the_rest_is_known_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(cloud: Any, recipe: Any) -> Any:
        raise CloudError("Azure answered 403")

    monkeypatch.setattr(openai, "survey", refuse)
    rest = SimpleNamespace(all=lambda *_, **__: [])
    found = survey(replace(cloud_of(), rest=cast(Any, rest)))
    assert (found.jobs, found.hosted, found.unread) == ((), (), "Azure answered 403")

"""Clusters, and the nodes that they have while jobs run on them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from tests.emulator.asking import MODELS, Client, client


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Client]:
    with client(tmp_path) as asking:
        yield asking


CLUSTER: dict[str, Any] = {
    "location": "eastus",
    "properties": {
        "computeType": "AmlCompute",
        "properties": {
            "vmSize": "Standard_NC40ads_H100_v5",
            "vmPriority": "LowPriority",
            "scaleSettings": {
                "maxNodeCount": 2,
                "minNodeCount": 0,
                "nodeIdleTimeBeforeScaleDown": "PT2M",
            },
        },
    },
}


def made(azure: Client) -> str:
    answer = azure.ask("PUT", "computes/gpu-cluster", CLUSTER, api=MODELS, expect=201)
    assert answer["properties"]["provisioningState"] == "Creating"
    azure.settled()
    return str(answer["id"])


def nodes(azure: Client) -> int:
    properties = azure.ask("GET", "computes/gpu-cluster", api=MODELS)["properties"]
    return int(properties["properties"]["currentNodeCount"])


def test_a_cluster_is_made_and_changed_and_rests_without_nodes(azure: Client) -> None:
    made(azure)
    again = azure.ask("PUT", "computes/gpu-cluster", CLUSTER, api=MODELS)
    assert again["id"].endswith("/computes/gpu-cluster")
    azure.settled()

    cluster = azure.ask("GET", "computes/gpu-cluster", api=MODELS)["properties"]
    assert cluster["provisioningState"] == "Succeeded"
    assert cluster["properties"]["scaleSettings"]["minNodeCount"] == 0
    assert cluster["properties"]["currentNodeCount"] == 0
    listed = azure.ask("GET", "computes", api=MODELS)["value"]
    assert [each["name"] for each in listed] == ["gpu-cluster"]


@pytest.mark.slow
def test_a_job_at_work_holds_nodes_and_the_cluster(azure: Client) -> None:
    cluster = made(azure)
    distribution = {"distributionType": "PyTorch", "processCountPerInstance": 1}
    azure.job(
        "work",
        "exec sleep 60",
        computeId=cluster,
        distribution=distribution,
        resources={"instanceCount": 2},
    )
    azure.until("work", "Running")

    assert nodes(azure) == 2
    listed = azure.ask("POST", "computes/gpu-cluster/listNodes", api=MODELS)["nodes"]
    assert [node["runId"] for node in listed] == ["work", "work"]
    busy = azure.ask(
        "DELETE", "computes/gpu-cluster?underlyingResourceAction=Delete", api=MODELS, expect=409
    )
    assert "Jobs still run on the compute: work" in busy["error"]["message"]
    azure.ask("POST", "jobs/work/cancel", api="2023-04-01-preview", expect=202)
    azure.settled()
    assert nodes(azure) == 0


def test_a_deleted_cluster_is_gone(azure: Client) -> None:
    made(azure)

    for status in (202, 204):
        azure.ask("DELETE", "computes/gpu-cluster", api=MODELS, expect=status)
        if status == 202:
            azure.settled()

    azure.ask("GET", "computes/gpu-cluster", api=MODELS, expect=404)


def test_a_cluster_without_quota_is_refused(azure: Client) -> None:
    azure.azure.faults.add(Fault(kind="quota", path="/computes/", cause="No more H100 for you."))

    answer = azure.ask("PUT", "computes/gpu-cluster", CLUSTER, api=MODELS, expect=400)

    assert answer["error"]["message"] == "No more H100 for you."
    made(azure)


def test_a_cluster_whose_nodes_cannot_be_had_ends_as_failed(azure: Client) -> None:
    azure.azure.faults.add(Fault(kind="failed_provisioning", path="/computes/", cause="No nodes."))
    made(azure)
    cluster = azure.ask("GET", "computes/gpu-cluster", api=MODELS)["properties"]
    assert cluster["provisioningState"] == "Failed"


def test_a_clusters_own_identity_has_an_object_id(azure: Client) -> None:
    body = {**CLUSTER, "identity": {"type": "SystemAssigned"}}
    azure.ask("PUT", "computes/gpu-cluster", body, api=MODELS, expect=201)
    azure.settled()
    identity = azure.ask("GET", "computes/gpu-cluster", api=MODELS)["identity"]
    assert identity["tenantId"] == azure.azure.settings.tenant
    assert len(identity["principalId"]) == 36


def test_an_identity_of_its_own_name_keeps_its_object_id(azure: Client) -> None:
    arm_id = f"{azure.azure.settings.group_id}/providers/Microsoft.ManagedIdentity/x/mine"
    asked = {"type": "UserAssigned", "userAssignedIdentities": {arm_id: {}}}
    seen = set()
    for cluster in ("first-cluster", "second-cluster"):
        body = {**CLUSTER, "identity": asked}
        azure.ask("PUT", f"computes/{cluster}", body, api=MODELS, expect=201)
        azure.settled()
        identity = azure.ask("GET", f"computes/{cluster}", api=MODELS)["identity"]
        seen.add(identity["userAssignedIdentities"][arm_id]["principalId"])
    assert len(seen) == 1

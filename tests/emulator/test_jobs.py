"""Jobs as the control plane has them: accepted or refused, listed, cancelled, deleted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from tests.emulator.asking import JOBS, LATER, Client, client
from tests.waiting import until

pytestmark = pytest.mark.slow  # they run jobs


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Client]:
    with client(tmp_path) as asking:
        yield asking


def test_a_new_job_is_starting_and_has_services_and_the_default_output(azure: Client) -> None:
    job = azure.job("first", "true", experimentName="tests")

    properties = job["properties"]
    assert properties["status"] == "Starting"
    assert set(properties["services"]) == {"Tracking", "Studio"}
    assert properties["outputs"]["default"] == {
        "jobOutputType": "uri_folder",
        "mode": "ReadWriteMount",
        "uri": "azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.first",
    }
    assert azure.ended("first")["status"] == "Completed"


def test_the_same_name_again_is_the_job_that_is_there(azure: Client) -> None:
    azure.job("once", "sleep 0.3; echo ran >>$AZURE_ML_OUTPUT_out/runs", outputs=OUT)

    again = azure.job("once", "echo something else", expect=200, tags={"more": "1"})

    assert "sleep" in again["properties"]["command"]
    assert again["properties"]["tags"] == {"more": "1"}
    azure.ended("once")
    assert azure.read("azureml/once/out/runs") == b"ran\n"


WATCH_FOR_SIGTERM = (
    "import signal, sys, time; "
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('had SIGTERM'))); "
    "print('up'); time.sleep(60)"
)
OUT: dict[str, Any] = {"out": {"jobOutputType": "uri_folder"}}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"command": "train ${{inputs.data}}"}, "refers to ${{inputs.data}}"),
        ({"command": "train ${{search_space.lr}}"}, "refers to ${{search_space.lr}}"),
        ({"environmentId": "/subscriptions/none"}, "environmentId: /subscriptions/none was not"),
        ({"computeId": "/subscriptions/s/computes/gpu"}, "computes/gpu was not found"),
        (
            {"inputs": {"data": {"jobInputType": "uri_file", "uri": "/subscriptions/none"}}},
            "input data: /subscriptions/none was not found",
        ),
        (
            {"outputs": {"out": {**OUT["out"], "uri": "azureml://datastores/mine/paths/x"}}},
            "Output out: there is no azureml://datastores/mine",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_it_costs(
    azure: Client, given: dict[str, Any], sentence: str
) -> None:
    answer = azure.job("bad", **{"command": "true", "expect": 400, **given})

    assert sentence in answer["error"]["message"]
    azure.ask("GET", "jobs/bad", expect=404)


@pytest.mark.parametrize("name", ["%2e%2e", ".hidden", "a.b"])
def test_a_job_whose_name_is_a_path_is_refused(azure: Client, name: str) -> None:
    answer = azure.job(name, "true", expect=400)
    assert "Request is invalid" in answer["error"]["message"]
    azure.meant = "name"


@pytest.mark.parametrize("key", ["../../evil", "..", "/etc", "a/b"])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_an_input_or_output_whose_name_is_a_path_is_refused(
    azure: Client, side: str, key: str
) -> None:
    spec = {"jobInputType": "literal", "value": "x"} if side == "inputs" else OUT["out"]
    answer = azure.job("sly", "true", expect=400, **{side: {key: spec}})
    assert "no name of an input or output" in answer["error"]["message"]


def test_an_output_version_is_refused_in_the_words_of_the_service(azure: Client) -> None:
    outputs = {"out": {"jobOutputType": "uri_folder", "assetVersion": "1"}}

    answer = azure.job("versioned", "true", expect=400, outputs=outputs)

    assert "Could not find member 'assetVersion'" in json.dumps(answer)
    azure.meant = "Could not find member 'assetVersion'"


def test_a_job_without_quota_is_refused(azure: Client) -> None:
    azure.azure.faults.add(Fault(kind="quota", path="/jobs/"))
    resources = {"instanceType": "Standard_NC40ads_H100_v5"}

    answer = azure.job("dear", "true", expect=400, resources=resources)

    assert "Not enough quota available for Standard_NC40ads_H100_v5" in answer["error"]["message"]
    azure.job("dear", "true", resources=resources)


def test_jobs_are_listed_newest_first_and_archived_ones_only_when_asked_for(azure: Client) -> None:
    azure.job("old", "true", tags={"homeport": "1"})
    azure.job("new", "true")
    azure.ask("PATCH", f"/history/v1.0{azure.workspace}/runs/old", {"hidden": True}, api="v1.0")

    def names(query: str) -> list[str]:
        return [job["name"] for job in azure.ask("GET", f"jobs?{query}")["value"]]

    assert names("listViewType=ActiveOnly") == ["new"]
    assert names("listViewType=ArchivedOnly") == ["old"]
    assert names("listViewType=All") == ["new", "old"]
    assert names("listViewType=All&tag=homeport=1") == ["old"]
    assert names("listViewType=All&jobType=Sweep") == []


def test_cancelling_ends_the_process_and_says_so_when_it_has(azure: Client) -> None:
    azure.job("long", f'python -c "{WATCH_FOR_SIGTERM}"')
    azure.until("long", "Running")
    until(lambda: azure.details("long")["logFiles"] != {})
    until(lambda: azure.log("long") == "up\n")

    azure.ask("POST", "jobs/long/cancel", api="2023-04-01-preview", expect=202)

    assert "Azure-AsyncOperation" not in azure.headers
    azure.settled()
    assert azure.ask("GET", "jobs/long", api=LATER)["properties"]["status"] == "Canceled"
    assert azure.log("long") == "up\nhad SIGTERM\n"


def test_cancelling_a_job_that_has_ended_changes_nothing(azure: Client) -> None:
    azure.job("done", "true")
    azure.ended("done")

    azure.ask("POST", "jobs/done/cancel", api="2023-04-01-preview", expect=202)
    azure.settled()

    assert azure.details("done")["status"] == "Completed"


def test_a_job_is_deleted_when_it_has_ended_and_not_before(azure: Client) -> None:
    azure.job("kept", "sleep 0.5")
    answer = azure.ask("DELETE", "jobs/kept", api="2023-04-01-preview", expect=409)
    assert "has not ended" in answer["error"]["message"]
    azure.ended("kept")

    azure.ask("DELETE", "jobs/kept", api="2023-04-01-preview", expect=202)
    azure.settled()

    azure.ask("GET", "jobs/kept", expect=404)
    azure.ask("DELETE", "jobs/kept", api="2023-04-01-preview", expect=204)


def test_what_is_not_run_here_is_501(azure: Client) -> None:
    mpi = {"distributionType": "Mpi", "processCountPerInstance": 2}

    azure.job("mpi", "true", expect=501, distribution=mpi)

    pipeline = {"properties": {"jobType": "Pipeline", "jobs": {}}}
    azure.ask("PUT", "jobs/pipe", pipeline, api=JOBS, expect=501)

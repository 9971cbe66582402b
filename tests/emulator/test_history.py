"""Run history: details with logs, the run's data, children, archiving."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from emulator.faults import Fault
from emulator.server import Server
from tests.emulator.asking import Client, client

pytestmark = pytest.mark.slow  # they run jobs


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Client]:
    with client(tmp_path) as asking:
        asking.job("run", "echo hello", tags={"a": "b"}, displayName="shown")
        asking.ended("run")
        yield asking


def test_details_tell_times_and_where_the_log_is(azure: Client) -> None:
    details = azure.details("run")

    assert details["status"] == "Completed"
    assert details["startTimeUtc"] < details["endTimeUtc"]
    assert details["tags"] == {"a": "b"}
    assert details["target"] == "serverless"
    url = details["logFiles"]["user_logs/std_log.txt"]
    assert url.startswith(
        "https://homeportrehearsal.blob.core.windows.net/azureml/ExperimentRun/dcid.run/user_logs/"
    )
    assert "sig=" in url


def test_a_sas_that_has_ended_can_be_had(azure: Client) -> None:
    azure.azure.faults.add(Fault(kind="expired_sas", path="/runs/run/details"))

    assert "se=2000" in azure.details("run")["logFiles"]["user_logs/std_log.txt"]
    assert "se=2999" in azure.details("run")["logFiles"]["user_logs/std_log.txt"]


def test_the_run_is_told_by_name_and_by_experiment(azure: Client) -> None:
    base = f"/history/v1.0{azure.workspace}"
    run = azure.ask("GET", f"{base}/runs/run", api="v1.0")

    assert (run["displayName"], run["dataContainerId"]) == ("shown", "dcid.run")
    assert azure.ask("GET", f"{base}/experiments/Default/runs/run", api="v1.0") == run
    assert azure.ask("GET", f"{base}/runs/run/children", api="v1.0") == {"value": []}


def test_hidden_archives_and_restores(azure: Client) -> None:
    path = f"/history/v1.0{azure.workspace}/experiments/Default/runs/run"

    for hidden in (True, False):
        answer = azure.ask("PATCH", path, {"hidden": hidden, "tags": {"c": "d"}}, api="v1.0")
        assert answer["hidden"] is hidden
        assert azure.ask("GET", "jobs/run")["properties"]["isArchived"] is hidden
    assert azure.details("run")["tags"] == {"c": "d"}


@pytest.mark.parametrize("what", ["/details", "/children", ""])
def test_an_unknown_run_is_not_found(azure: Client, what: str) -> None:
    path = f"/history/v1.0{azure.workspace}/runs/none{what}"

    answer = azure.ask("GET", path, api="v1.0", expect=404)

    assert "Run none was not found" in answer["error"]["message"]


def test_a_follower_reads_the_log_from_the_byte_that_it_has(local_azure: Server) -> None:
    azure = Client(local_azure)
    azure.environment_id = azure.environment("followed")
    azure.job(
        "followed",
        "echo one; echo two; cd ${{outputs.out}} && mkdir a && echo 3 >a/b",
        outputs={"out": {"jobOutputType": "uri_folder"}},
    )
    url = azure.ended("followed")["logFiles"]["user_logs/std_log.txt"]

    rest = requests.get(
        url,
        headers={"Range": "bytes=4-"},
        proxies={"https": local_azure.proxy_url},
        verify=local_azure.env["REQUESTS_CA_BUNDLE"],
        timeout=30,
    )

    assert (rest.status_code, rest.text) == (206, "two\n")
    assert azure.read("azureml/followed/out/a/b") == b"3\n"

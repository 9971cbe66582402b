"""The unpatched SDK goes a project's whole way (sdk_session.py) against the local Azure, in the
version that is pinned and in the newest; each result is what it must be, and nothing turned red.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emulator.server import Server
from emulator.storage import locate
from tests import clients

pytestmark = pytest.mark.slow

SESSION = Path(__file__).parent / "sdk_session.py"
SECONDS = 150


def pinned() -> str:
    """The interpreter with the SDK of cloud.txt."""
    pytest.importorskip("azure.ai.ml", reason="installed by the first cloud verb")
    return sys.executable


def newest() -> str:
    """The interpreter with the SDK of tests/newest_sdk.txt."""
    return clients.python(clients.NEWEST_SDK)


@dataclass(frozen=True)
class Ran:
    """One session: what it reported, and the Azure that it spoke with."""

    facts: Mapping[str, Any]
    server: Server
    folder: Path

    def __getitem__(self, flow: str) -> Any:
        facts = self.facts[flow]
        if "raised" in facts:
            pytest.fail(f"{flow} with azure-ai-ml {self.facts['version']}:\n{facts['raised']}")
        return facts


@pytest.fixture(scope="module", params=[pinned, newest], ids=["pinned", "newest"])
def ran(
    request: pytest.FixtureRequest, local_azure: Server, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    folder = tmp_path_factory.mktemp("session")
    environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    environment |= local_azure.env
    environment |= {"HOME": str(folder), "AZUREML_DISABLE_ON_DISK_CACHE": "true"}
    environment |= {f"AZUREML_RUN_POLLING_INTERVAL_{end}": "1" for end in ("MIN", "MAX")}
    done = subprocess.run(
        [request.param(), str(SESSION), str(folder), request.param.__name__],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    facts = json.loads((folder / "facts.json").read_text())
    print(facts["version"], facts["seconds"])
    return Ran(facts, local_azure, folder)


def blobs(ran: Ran, uri: str) -> dict[str, str]:
    """Name below `uri` -> SHA-256 of each blob there, as storage itself holds it."""
    container, prefix = locate(uri, ran.server.azure.settings, ran.server.azure.store)
    storage = ran.server.azure.storage
    return {
        name.removeprefix(prefix): hashlib.sha256(storage.read(container, name)).hexdigest()
        for name in storage.names(container, prefix)
    }


def test_the_workspace_is_found_with_its_datastores(ran: Ran) -> None:
    assert ran["workspace"] == {
        "location": "eastus",
        "identity": "system_assigned",
        "datastore": "workspaceblobstore",
        "datastores": ["workspaceartifactstore", "workspaceblobstore"],
    }


def test_data_lies_in_storage_byte_for_byte(ran: Ran) -> None:
    data = ran["data"]
    assert list(blobs(ran, data["path"]).values()) == [data["sha256"]]
    assert data["versions"] == ["1", "2"]
    assert data["latest"] == "2"


def test_environments_keep_the_digest_and_the_build_context(ran: Ran) -> None:
    environments = ran["environments"]
    for role, image in environments["images"].items():
        assert re.fullmatch(rf"\w+\.azurecr\.io/homeport/{role}@sha256:[0-9a-f]{{64}}", image)
    assert [name.rpartition("/")[2] for name in blobs(ran, environments["context"])] == [
        "Dockerfile"
    ]


def test_a_job_runs_on_two_processes_and_its_output_comes_back(ran: Ran) -> None:
    job = ran["train"]
    assert job["statuses"] == ["Starting", "Completed"]
    assert job["same"]
    assert job["listed"]
    assert job["outputs"] == ["default", "log", "model"]
    assert job["studio"].startswith("https://ml.azure.com/runs/")
    assert job["seen"] == ["0.0001", "hei"]
    assert [Path(name).name for name in job["files"]] == ["weights.bin"]
    assert list(job["files"].values()) == [job["trained"]]


def test_the_job_s_log_is_in_its_run_history(ran: Ran) -> None:
    name = f"ExperimentRun/dcid.{ran.facts['names']['job']}/user_logs/std_log"
    storage = ran.server.azure.storage
    logs = {n: storage.read("azureml", n).decode() for n in storage.names("azureml", name)}
    assert len(logs) == 2
    for rank in ("0", "1"):
        (log,) = [text for text in logs.values() if f"rank {rank} of 2 learns" in text]
        assert ("the job is done" in log) == (rank == "0")


def test_the_sdk_follows_the_log(ran: Ran) -> None:
    """Since 1.35 it signs a blob SAS with the SAS as the key, and prints the refusal as the log."""
    log = ran["train"]["log"]
    if ran.facts["version"].startswith("1.34."):
        assert "the job is done" in log
    assert "Execution Summary" in log


def test_a_running_job_is_cancelled(ran: Ran) -> None:
    assert ran["cancelled"] == {"status": "Canceled"}


def test_a_job_that_fails_says_its_exit_code(ran: Ran) -> None:
    failed = ran["failed"]
    assert failed["status"] == "Failed"
    assert "exited with status code 3" in failed["said"]
    assert not failed["listed"]


def test_a_model_is_made_of_the_job_s_output(ran: Ran) -> None:
    model = ran["model"]
    assert model["job"] == ran.facts["names"]["job"]
    assert [Path(name).name for name in model["files"]] == ["weights.bin"]
    assert list(model["files"].values()) == [ran["train"]["trained"]]
    assert list(blobs(ran, model["path"]).values()) == [ran["train"]["trained"]]
    assert model["versions"] == ["1", "2"]
    assert model["latest"] == "2"
    assert sorted(model["listed"]) == ["1", "2"]


def test_a_deployment_answers_from_the_weights_that_the_job_wrote(ran: Ran) -> None:
    endpoint = ran["endpoint"]
    assert endpoint["states"] == ["Succeeded", "Succeeded"]
    assert re.fullmatch(r"https://[\w-]+\.eastus\.inference\.ml\.azure\.com/score", endpoint["uri"])
    assert endpoint["traffic"] == {"blue": 100}
    assert endpoint["keys"] == 2
    answer = {
        "weights": ran["train"]["trained"],
        "asked": {"prompt": "hello"},
        "greeting": "hei",
    }
    assert endpoint["answers"] == [answer, answer]


def test_both_containers_of_a_deployment_have_logs(ran: Ran) -> None:
    logs = ran["endpoint"]["logs"]
    assert f"serving {ran['train']['trained']}" in logs["inference-server"]
    assert logs["storage-initializer"].strip()


def test_an_endpoint_is_listed_and_then_gone(ran: Ran) -> None:
    endpoint = ran["endpoint"]
    name = ran.facts["names"]["endpoint"]
    assert endpoint["deployments"] == ["blue"]
    assert name in endpoint["endpoints"]
    assert name not in endpoint["left"]


def test_a_cluster_comes_and_goes(ran: Ran) -> None:
    compute = ran["compute"]
    assert compute["state"] == "Succeeded"
    assert [str(value).lower() for value in compute["shape"]] == [
        "standard_ds3_v2",
        "0",
        "1",
        "low_priority",
    ]
    assert compute["idle"] == 120
    assert compute["listed"]
    assert not compute["left"]


def test_nothing_turned_red_and_nothing_left_the_machine(ran: Ran) -> None:
    report = ran.server.azure.journal.report()
    assert report["problems"] == []
    endpoint = ran.facts["names"]["endpoint"]
    assert f"{endpoint}.eastus.inference.ml.azure.com" in report["hosts"]
    allowed = (
        r"management\.azure\.com|login\.microsoftonline\.com|homeportrehearsal\.\w+\.core\.windows"
        r"\.net|eastus\.api\.azureml\.ms|[\w-]+\.eastus\.inference\.ml\.azure\.com"
        r"|homeportrehearsal\.(azurecr\.io|vault\.azure\.net)|homeport\w+\.openai\.azure\.com"
    )
    assert [host for host in report["hosts"] if not re.fullmatch(allowed, host)] == []

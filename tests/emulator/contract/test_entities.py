"""The SDK makes the same entity of our answers as of the service's own (bodies.py)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator.server import Server
from tests.emulator.contract import bodies
from tests.local_azure import bare_azure, environment

pytestmark = pytest.mark.slow  # imports the SDK


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("azure.ai.ml", reason="installed by the first cloud verb")
    with bare_azure(tmp_path) as server, environment(server):
        yield server


def put(server: Server, path: str, version: str, body: Any) -> Any:
    token = server.azure.tokens.issue("https://management.azure.com", "me")
    answer = requests.put(
        f"https://management.azure.com{server.azure.settings.workspace_id}/{path}",
        params={"api-version": version},
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_of_a_job_that_was_made(server: Server) -> None:
    from azure.ai.ml._restclient.v2025_01_01_preview.models import JobBase
    from azure.ai.ml.entities import Job

    def entity(answer: Any) -> Any:
        job = Job._from_rest_object(JobBase.deserialize(answer))
        made = job._to_dict()
        made.pop("services", None)  # addresses of the region
        made.pop("component")  # the same once more
        # No recording shows where the service says that a named output will lie.
        made["outputs"]["model"].pop("path", None)
        return {
            **made,
            "status": job.status,
            "services": sorted(job.services),
            "studio": bool(job.studio_url),
        }

    put(server, "environments/train/versions/1", "2023-04-01-preview", bodies.environment())
    put(server, "data/train/versions/1", "2023-04-01-preview", bodies.data())
    ours = put(server, "jobs/job1", "2025-01-01-preview", bodies.job())
    assert entity(ours) == entity(bodies.job_answer("job1"))


def test_of_an_endpoint_that_is_being_made(server: Server) -> None:
    from azure.ai.ml._restclient.v2022_02_01_preview.models import OnlineEndpointData
    from azure.ai.ml.entities import OnlineEndpoint

    arm_id = f"{server.azure.settings.workspace_id}/onlineEndpoints/endpoint"
    recorded = bodies.resource(
        arm_id,
        bodies.endpoint(
            provisioningState="Creating",
            traffic={},
            mirrorTraffic={},
            publicNetworkAccess="Enabled",
            scoringUri="https://endpoint.eastus.inference.ml.azure.com/score",
        ),
    )
    recorded["kind"] = "Managed"
    recorded["systemData"]["lastModifiedAt"] = recorded["systemData"]["createdAt"]

    def entity(answer: Any) -> Any:
        endpoint = OnlineEndpoint._from_rest_object(OnlineEndpointData.deserialize(answer))
        names = ("name", "tags", "location", "auth_mode", "traffic", "mirror_traffic")
        state = ("provisioning_state", "scoring_uri", "public_network_access")
        return {name: getattr(endpoint, name) for name in (*names, *state)} | {
            "kind": type(endpoint).__name__,
            "identity": endpoint.identity.type,
        }

    ours = put(server, "onlineEndpoints/endpoint", "2022-02-01-preview", bodies.endpoint())
    assert entity(ours) == entity(recorded)

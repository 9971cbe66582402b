"""Verdicts of the real service, as recordings show them: the contract must judge as it did."""

from typing import Any

import pytest

from emulator.contract import check_request, check_response
from tests.emulator.contract import bodies
from tests.emulator.contract.bodies import HISTORY, WORKSPACE

ACCEPTED = {
    "a command job": ("jobs/job1", "2025-01-01-preview", bodies.job()),
    "a pipeline job": ("jobs/job1", "2024-01-01-preview", bodies.pipeline()),
    "a fine-tuning job": ("jobs/job1", "2024-10-01-preview", bodies.finetuning()),
    "enum values in any case": (
        "jobs/job1",
        "2025-01-01-preview",
        bodies.job(outputs={"model": {"jobOutputType": "URI_Folder", "mode": "upload"}}),
    ),
    "a subtype in any case": ("jobs/job1", "2025-01-01-preview", bodies.job(jobType="command")),
    "numbers where the contract says strings": (
        "codes/00000000-0000-0000-0000-000000000002/versions/1",
        "2023-04-01",
        bodies.code(properties={"hash_sha256": "0", "hash_version": 202208}),
    ),
    "objects in a model's flavors": (
        "models/model/versions/1",
        "2023-08-01-preview",
        bodies.model(),
    ),
    "an endpoint": ("onlineEndpoints/endpoint", "2022-02-01-preview", bodies.endpoint()),
    "traffic": (
        "onlineEndpoints/endpoint",
        "2022-02-01-preview",
        bodies.endpoint(traffic={"blue": 100}),
    ),
    "a deployment": (
        "onlineEndpoints/endpoint/deployments/blue",
        "2023-04-01-preview",
        bodies.deployment(),
    ),
    "an environment": ("environments/serve/versions/1", "2023-04-01-preview", bodies.environment()),
    "data": ("data/train/versions/1", "2023-04-01-preview", bodies.data()),
    "a cluster": ("computes/cpu-cluster", "2023-08-01-preview", bodies.compute()),
}


@pytest.mark.parametrize(("path", "version", "body"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_service_took_passes(path: str, version: str, body: Any) -> None:
    assert check_request("PUT", f"{WORKSPACE}/{path}", version, body) == []


def test_an_output_with_a_version_is_refused_in_the_words_of_the_service() -> None:
    """Recorded on 2026-03-27: 400. The SDK still sends it."""
    output = {"jobOutputType": "uri_folder", "mode": "Upload", "assetVersion": "1"}
    body = bodies.job(outputs={"model": output})
    (sentence,) = check_request("PUT", f"{WORKSPACE}/jobs/job1", "2025-01-01-preview", body)
    assert sentence.startswith(
        "Could not find member 'assetVersion' on object of type 'UriFolderJobOutput'"
    )


ANSWERS = {
    "a job that was made": ("PUT", f"{WORKSPACE}/jobs/job1", 201, bodies.job_answer()),
    "the same job again": ("PUT", f"{WORKSPACE}/jobs/job1", 200, bodies.job_answer()),
    "an endpoint that is being made": (
        "PUT",
        f"{WORKSPACE}/onlineEndpoints/endpoint",
        201,
        bodies.resource(
            f"{WORKSPACE}/onlineEndpoints/endpoint",
            bodies.endpoint(provisioningState="Creating", traffic={}),
        ),
    ),
    "a SAS, whatever the datastore's credentials": (
        "POST",
        f"{WORKSPACE}/datastores/workspaceblobstore/listSecrets",
        200,
        {"secretsType": "Sas", "sasToken": "sv=2021-12-02&ss=bf&srt=co&sp=rcwdl&sig=…"},
    ),
    "a datastore that keeps its secrets": (
        "GET",
        f"{WORKSPACE}/datastores/workspaceblobstore",
        200,
        bodies.resource(
            f"{WORKSPACE}/datastores/workspaceblobstore",
            {
                "properties": {
                    "datastoreType": "AzureBlob",
                    "accountName": "account",
                    "containerName": "azureml",
                    "credentials": {"credentialsType": "AccountKey"},
                }
            },
        ),
    ),
    "an unknown model": (
        "GET",
        f"{WORKSPACE}/models/unknown/versions",
        404,
        bodies.envelope("Could not find asset", "ModelNotFound"),
    ),
    "fine-tuning in the wrong region": (
        "PUT",
        f"{WORKSPACE}/jobs/job1",
        400,
        bodies.envelope("The model is not here", "ModelNotSupportedByMaaS"),
    ),
    "a job that is to be cancelled": ("POST", f"{WORKSPACE}/jobs/job1/cancel", 202, None),
    "a run's details": (
        "GET",
        f"{HISTORY}/runs/job1/details",
        200,
        {"runId": "job1", "status": "Running", "logFiles": {"user_logs/std_log.txt": "https://…"}},
    ),
}
VERSIONS = {
    "onlineEndpoints": "2022-02-01-preview",
    "datastores": "2024-10-01-preview",
    "models": "2023-08-01-preview",
    "cancel": "2023-04-01-preview",
    "jobs": "2025-01-01-preview",
    "runs": "",
}


@pytest.mark.parametrize(("method", "path", "status", "body"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_service_answered_passes(method: str, path: str, status: int, body: Any) -> None:
    version = next(version for part, version in VERSIONS.items() if part in path)
    assert check_response(method, path, version, status, body) == []


def test_a_parent_is_neither_sent_nor_answered_at_a_version_that_lacks_it() -> None:
    path = f"{WORKSPACE}/jobs/job1"
    version = "2024-01-01-preview"
    sent = check_request("PUT", path, version, bodies.job(parentJobName="job0"))
    assert sent == check_response("GET", path, version, 200, bodies.job_answer())
    assert sent == [
        "Could not find member 'parentJobName' on object of type 'CommandJob'."
        " Path 'properties.parentJobName'."
    ]

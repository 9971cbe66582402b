"""The check is closed: each change of an accepted body is refused, and says where."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from emulator.contract import check_request, check_response, versions
from emulator.contract.check import FOLDER
from tests.emulator.contract import bodies
from tests.emulator.contract.bodies import WORKSPACE, Body

JOB = (f"{WORKSPACE}/jobs/job1", "2025-01-01-preview")
PIPELINE = (f"{WORKSPACE}/jobs/job2", "2024-01-01-preview")
FINETUNING = (f"{WORKSPACE}/jobs/job3", "2024-10-01-preview")
ENDPOINT = (f"{WORKSPACE}/onlineEndpoints/endpoint", "2022-02-01-preview")
DEPLOYMENT = (f"{WORKSPACE}/onlineEndpoints/endpoint/deployments/blue", "2023-04-01-preview")
ENVIRONMENT = (f"{WORKSPACE}/environments/serve/versions/1", "2023-04-01-preview")
DATA = (f"{WORKSPACE}/data/train/versions/1", "2023-04-01-preview")
CODE = (f"{WORKSPACE}/codes/code/versions/1", "2023-04-01")
MODEL = (f"{WORKSPACE}/models/model/versions/1", "2023-08-01-preview")
COMPUTE = (f"{WORKSPACE}/computes/cpu-cluster", "2023-08-01-preview")

BODIES: dict[tuple[str, str], Callable[..., Body]] = {
    JOB: bodies.job,
    PIPELINE: bodies.pipeline,
    FINETUNING: bodies.finetuning,
    ENDPOINT: bodies.endpoint,
    DEPLOYMENT: bodies.deployment,
    ENVIRONMENT: bodies.environment,
    DATA: bodies.data,
    CODE: bodies.code,
    MODEL: bodies.model,
    COMPUTE: bodies.compute,
}
GONE = object()

MUTATIONS: dict[str, list[tuple[tuple[str, str], str, object, str]]] = {
    "a member lost": [
        (JOB, "properties.jobType", GONE, "Required property 'jobType'"),
        (JOB, "properties.command", GONE, "Required property 'command'"),
        (JOB, "properties.environmentId", None, "Required property 'environmentId'"),
        (JOB, "properties.outputs.model.jobOutputType", GONE, "Required property 'jobOutputType'"),
        (JOB, "properties.inputs.train.uri", GONE, "Required property 'uri'"),
        (JOB, "properties", GONE, "Required property 'properties'"),
        (PIPELINE, "properties.outputs.trained_model.jobOutputType", GONE, "'jobOutputType'"),
        (FINETUNING, "properties.fineTuningDetails", GONE, "'fineTuningDetails'"),
        (FINETUNING, "properties.fineTuningDetails.trainingData", GONE, "'trainingData'"),
        (FINETUNING, "properties.fineTuningDetails.modelProvider", GONE, "'modelProvider'"),
        (FINETUNING, "properties.outputs", None, "Required property 'outputs'"),
        (ENDPOINT, "location", GONE, "Required property 'location'"),
        (ENDPOINT, "properties.authMode", GONE, "Required property 'authMode'"),
        (ENVIRONMENT, "properties.inferenceConfig.scoringRoute.port", GONE, "'port'"),
        (DATA, "properties.dataUri", GONE, "Required property 'dataUri'"),
        (COMPUTE, "properties.properties.scaleSettings.maxNodeCount", GONE, "'maxNodeCount'"),
    ],
    "a member too many": [
        (JOB, "properties.codeID", "x", "'codeID' on object of type 'CommandJob'"),
        (JOB, "properties.limits.maxHours", 1, "'maxHours' on object of type 'CommandJobLimits'"),
        (JOB, "properties.inputs.train.path", "x", "'path' on object of type 'UriFileJobInput'"),
        (JOB, "kind", "x", "'kind' on object of type 'JobBase'"),
        (PIPELINE, "properties.limits", {"timeout": "PT1H"}, "'limits' on object of type 'Pipel"),
        (FINETUNING, "properties.limits", {"timeout": "PT1H"}, "'limits' on object of type"),
        (FINETUNING, "properties.fineTuningDetails.seed", 1, "'CustomModelFineTuning'"),
        (DEPLOYMENT, "properties.requestSettings.timeout", "PT1M", "'timeout'"),
        (DEPLOYMENT, "properties.livenessProbe.path", "/", "'path' on object of type"),
        (ENVIRONMENT, "properties.inferenceConfig.livenessRoute.url", "/", "'url'"),
        (COMPUTE, "properties.vmSize", "x", "'vmSize' on object of type 'AmlCompute'"),
        (CODE, "properties.hash", "x", "'hash'"),
        (MODEL, "properties.path", "x", "'path'"),
    ],
    "a wrong value": [
        (JOB, "properties.outputs.model.mode", "Copy", "to type 'OutputDeliveryMode'"),
        (JOB, "properties.resources.instanceCount", "one", "to type 'int'"),
        (JOB, "properties.limits.timeout", "3600s", "to type 'duration'"),
        (JOB, "properties.limits.timeout", 3600, "to type 'duration'"),
        (FINETUNING, "properties.fineTuningDetails.taskType", "Sums", "to type 'FineTuningTaskT"),
        (FINETUNING, "properties.queueSettings.jobTier", "Cheap", "to type 'JobTier'"),
        (ENDPOINT, "properties.authMode", "Password", "to type 'EndpointAuthMode'"),
        (COMPUTE, "properties.properties.vmPriority", "Spot", "to type 'VmPriority'"),
        (DATA, "properties.isAnonymous", "maybe", "to type 'bool'"),
    ],
    "a wrong subtype": [
        (JOB, "properties.jobType", "Batch", 'converting value "Batch"'),
        (JOB, "properties.jobType", "Sweep", "'Sweep' is not rehearsed here"),
        (FINETUNING, "properties.fineTuningDetails.modelProvider", "Meta", "'FineTuningVertical'"),
        (JOB, "properties.distribution.distributionType", "Horovod", "'DistributionConfiguration'"),
        (
            DEPLOYMENT,
            "properties.endpointComputeType",
            "Serverless",
            "'OnlineDeploymentProperties'",
        ),
        (COMPUTE, "properties.computeType", "Cluster", "to type 'Compute'"),
    ],
    "a wrong kind": [
        (PIPELINE, "properties.jobs", [], "Expected an object. Path 'properties.jobs'"),
        (FINETUNING, "properties.resources.instanceTypes", "one", "Expected an array"),
        (FINETUNING, "properties.fineTuningDetails.hyperParameters", ["a"], "Expected an object"),
        (JOB, "properties.outputs", [], "Expected an object. Path 'properties.outputs'"),
        (JOB, "properties.command", ["python", "train.py"], "Unexpected character"),
        (JOB, "properties.limits", "PT1H", "Expected an object of type 'CommandJobLimits'"),
        (JOB, "properties.tags", {"a": {"b": 1}}, "Path 'properties.tags.a'"),
        (DEPLOYMENT, "sku", 1, "Expected an object of type 'Sku'"),
    ],
    "what only the service says": [
        (JOB, "properties.status", "Completed", "'status' on object of type 'CommandJob' is read"),
        (DEPLOYMENT, "properties.provisioningState", "Succeeded", "is read-only"),
    ],
}


def changed(body: Body, path: str, value: object) -> Body:
    made: Body = json.loads(json.dumps(body))  # a copy in which nothing is shared
    *outer, last = path.split(".")
    inner: Any = made
    for name in outer:
        inner = inner[name]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return made


@pytest.mark.parametrize(
    ("target", "path", "value", "sentence"),
    [
        pytest.param(*mutation, id=f"{kind}: {mutation[1]}")
        for kind, mutations in MUTATIONS.items()
        for mutation in mutations
    ],
)
def test_a_changed_body_is_refused(
    target: tuple[str, str], path: str, value: object, sentence: str
) -> None:
    good = BODIES[target]()
    assert check_request("PUT", *target, good) == []
    wrong = check_request("PUT", *target, changed(good, path, value))
    assert len(wrong) == 1
    assert sentence in wrong[0]


def test_tags_and_variables_take_any_name() -> None:
    body = bodies.job(tags={"anything": "x"}, environmentVariables={"ANY_THING": "y"})
    assert check_request("PUT", *JOB, body) == []


def test_all_that_is_wrong_is_told_at_once() -> None:
    body = changed(changed(bodies.job(), "properties.command", GONE), "properties.codeID", "x")
    assert len(check_request("PUT", *JOB, body)) == 2


def test_a_put_without_a_body_is_refused() -> None:
    assert check_request("PUT", *JOB, None)


@pytest.mark.parametrize("version", ["", "2019-01-01", "2025-01-01-Preview", "2022-02-01-preview"])
def test_an_api_version_that_the_collection_does_not_have_is_refused(version: str) -> None:
    (sentence,) = check_request("PUT", JOB[0], version, bodies.job())
    assert sentence.startswith(
        f"No registered resource provider found for API version '{version}' for type"
        " 'workspaces/jobs'. The supported api-versions are '2023-04-01-preview, "
    )


@pytest.mark.parametrize(
    ("path", "version", "body"),
    [
        (f"{WORKSPACE}/jobs/{'j' * 256}", "2025-01-01-preview", bodies.job()),
        (f"{WORKSPACE}/jobs/a.b", "2025-01-01-preview", bodies.job()),
        (f"{WORKSPACE}/computes/c2", "2023-08-01-preview", bodies.compute()),
        (f"{WORKSPACE}/computes/{'c' * 25}", "2023-08-01-preview", bodies.compute()),
    ],
)
def test_a_name_that_the_service_would_not_take_is_refused(
    path: str, version: str, body: Body
) -> None:
    (sentence,) = check_request("PUT", path, version, body)
    assert "does not match the pattern" in sentence


def test_what_the_contract_does_not_name_is_left_to_the_routes() -> None:
    assert check_request("PUT", f"{WORKSPACE}/teapots/one", "2025-01-01-preview", {}) == []
    assert check_response("GET", "/discovery", "", 200, {"api": "x"}) == []


def test_paths_compare_without_case() -> None:
    path = JOB[0].replace("resourceGroups", "resourcegroups").replace("jobs", "Jobs")
    assert check_request("PUT", path, JOB[1], changed(bodies.job(), "properties.codeID", "x"))


@pytest.mark.parametrize(
    ("status", "change", "sentence"),
    [
        (202, {}, "Answered 202, where the contract knows 200, 201."),
        (201, {"properties.status": "Begun"}, "to type 'JobStatus'"),
        (201, {"properties.exitCode": 3}, "'exitCode' on object of type 'CommandJob'"),
        (201, {"systemData.createdAt": "yesterday"}, "to type 'iso-8601'"),
        (201, {"properties.command": GONE}, "Required property 'command'"),
        (400, {}, "on object of type 'ErrorResponse'"),
    ],
)
def test_an_answer_off_the_contract_is_told(
    status: int, change: dict[str, Any], sentence: str
) -> None:
    body = bodies.job_answer()
    for path, value in change.items():
        body = changed(body, path, value)
    assert sentence in check_response("PUT", *JOB, status, body)[0]


def test_an_answer_without_its_body_is_told() -> None:
    assert check_response("PUT", *JOB, 201, None)
    assert check_response("POST", f"{JOB[0]}/cancel", "2023-04-01-preview", 202, None) == []


def test_lists_are_checked_item_by_item() -> None:
    wrong = changed(bodies.job_answer(), "properties.exitCode", 3)
    body = {"value": [bodies.job_answer(), wrong]}
    (sentence,) = check_response("GET", f"{WORKSPACE}/jobs", "2025-01-01-preview", 200, body)
    assert sentence.endswith("Path 'value[1].properties.exitCode'.")


def test_an_older_version_answers_without_the_members_that_it_lacks() -> None:
    path, body = FINETUNING[0], bodies.resource(FINETUNING[0], bodies.finetuning())
    assert check_response("GET", path, "2024-10-01-preview", 200, body) == []
    wrong = check_response("GET", path, "2024-01-01-preview", 200, body)
    assert [sentence.split("'")[1] for sentence in wrong] == ["resources", "queueSettings"]


def test_a_registry_is_asked_below_the_front_of_its_region() -> None:
    arm = WORKSPACE.replace("workspaces/homeport", "registries/azureml")
    path = f"/mferp/managementfrontend{arm}/models/Phi-4/versions"
    assert check_request("GET", path, "2021-10-01-dataplanepreview", None) == []
    (sentence,) = check_request("GET", path, "2023-08-01-preview", None)
    assert "for type 'registries/models/versions'" in sentence
    wrong = {"value": [{"properties": {"modelUri": "https://…", "modelPath": "x"}}]}
    (sentence,) = check_response("GET", path, "2021-10-01-dataplanepreview", 200, wrong)
    assert "'modelPath' on object of type 'ModelVersionDetails'" in sentence


def test_the_contract_knows_every_version_that_the_sdk_sends() -> None:
    """Those of azure-ai-ml 1.34.1 and 1.35.2 by their logs, and that of Azure OpenAI accounts."""
    assert versions() == [
        "2021-10-01-dataplanepreview",
        "2022-02-01-preview",
        "2023-04-01",
        "2023-04-01-preview",
        "2023-08-01-preview",
        "2024-01-01-preview",
        "2024-10-01",
        "2024-10-01-preview",
        "2025-01-01-preview",
    ]


SOURCES = {
    f"{wheel}-py3-none-any.whl"
    for wheel in ("azure_ai_ml-1.32.0", "azure_mgmt_cognitiveservices-13.6.0", "openai-3.54.0")
}
SCALARS = {"str", "bool", "int", "float", "long", "duration", "iso-8601", "object"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_type_that_a_contract_file_names_is_in_it(path: Any) -> None:
    contract = json.loads(path.read_bytes())
    assert contract["source"] in SOURCES
    assert contract["operations"]
    known = {*contract["types"], *contract["enums"], *SCALARS}
    named = {
        kind.strip("[]{}")
        for described in contract["types"].values()
        for kind in (*described["members"].values(), *described.get("subtypes", {}).values())
        if kind
    }
    assert named <= known

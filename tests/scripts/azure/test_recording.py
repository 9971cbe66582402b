"""Recordings hold what was asked and answered, and nothing of whose Azure it was."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.azure import recording
from tests.local_azure import bare_azure, environment
from tests.tree import ROOT

ARM_ID = (
    "/subscriptions/0a1b2c3d-1111-4222-8333-444455556666/resourceGroups/secret-project-rg"
    "/providers/Microsoft.MachineLearningServices/workspaces/contoso-ml"
)


def exchange(response: Any = None, request: Any = None, path: str = ARM_ID) -> recording.Exchange:
    return {
        "method": "POST",
        "host": "management.azure.com",
        "path": path,
        "query": {"api-version": "2024-10-01-preview"},
        "request": request,
        "status": 200,
        "headers": {"location": f"https://management.azure.com{ARM_ID}?t=1&sig=abc%2B"},
        "response": response,
    }


@pytest.mark.parametrize(
    ("response", "private"),
    [
        ({"secretsType": "Sas", "sasToken": "?sv=2021&sig=s3cr3t"}, "s3cr3t"),
        ({"primaryKey": "s3cr3t", "secondaryKey": "x"}, "s3cr3t"),
        ({"secretsType": "AccountKey", "key": "s3cr3t"}, "s3cr3t"),
        ({"accessToken": "s3cr3t", "expiryTimeUtc": 1}, "s3cr3t"),
        ({"a": "eyJhbGciOi.eyJzdWIiOi.s3cr3t"}, "s3cr3t"),
        ({"a": f"{'s3cr3t' * 12}=="}, "s3cr3t"),
        ({"logFiles": {"a": "https://x.blob.core.windows.net/c/b?sv=1&sig=s3cr3t&se=2"}}, "s3cr3t"),
        ({"blobReferenceForConsumption": {"credential": {"sasUri": "https://s3cr3t"}}}, "s3cr3t"),
        ({"properties": {"environmentVariables": {"TOKEN": "s3cr3t"}}}, "s3cr3t"),
        ({"content": "a log with s3cr3t in it"}, "s3cr3t"),
        ({"systemData": {"createdBy": "Ada Lovelace"}}, "Ada"),
        ({"owner": "ada@contoso.example"}, "ada@"),
        ({"ip": "20.30.40.50"}, "20.30.40.50"),
        ({"a": "see contoso-ml in SECRET-project-rg"}, "contoso-ml"),
        ({"a": "see contoso-ml in SECRET-project-rg"}, "SECRET"),
        ({"principalId": "77777777-aaaa-4bbb-8ccc-dddddddddddd"}, "77777777"),
        (
            {
                "storageAccount": "/providers/Microsoft.Storage/storageAccounts/contosostore",
                "uri": "https://contosostore.blob.core.windows.net/c",
            },
            "contosostore",
        ),
    ],
)
def test_what_is_private_is_taken_out(response: Any, private: str) -> None:
    text = json.dumps(recording.sanitised([exchange(response, request=response)]))
    assert private in json.dumps(response)
    assert private not in text
    assert "abc%2B" not in text


def test_what_is_not_private_is_kept() -> None:
    properties = {
        "jobType": "Command",
        "environmentVariables": {"A": "1"},
        "uri": "azureml://datastores/workspaceblobstore/paths/homeport/smoke/runs",
        "tags": {"homeport-image": f"sha256:{'ab' * 32}"},
        "timeout": "PT30M",
    }
    resource = {
        "properties": properties,
        "type": "Microsoft.MachineLearningServices/workspaces/jobs",
    }
    (kept,) = recording.sanitised([exchange(resource, path=f"{ARM_ID}/jobs/x")])
    assert kept["path"] == (
        "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rehearsal"
        "/providers/Microsoft.MachineLearningServices/workspaces/homeport/jobs/x"
    )
    assert kept["response"]["properties"] == {
        **properties,
        "environmentVariables": {"A": recording.GONE},
    }
    assert kept["response"]["type"] == "Microsoft.MachineLearningServices/workspaces/jobs"
    assert kept["query"] == {"api-version": "2024-10-01-preview"}


def test_a_secret_keeps_its_shape() -> None:
    request = {"expirableSecret": True, "credential": {"credentialType": "SAS", "sasUri": "x"}}
    (kept,) = recording.sanitised([exchange(request=request)])
    assert kept["request"] == {
        "expirableSecret": True,
        "credential": {"credentialType": "SAS", "sasUri": recording.GONE},
    }


def test_the_same_id_has_the_same_stand_in_everywhere() -> None:
    one, two = "77777777-aaaa-4bbb-8ccc-dddddddddddd", "88888888-aaaa-4bbb-8ccc-dddddddddddd"
    kept = recording.sanitised([exchange({"a": one, "b": two, "c": one.upper()}), exchange(two)])
    assert kept[0]["response"]["a"] == kept[0]["response"]["c"] != kept[0]["response"]["b"]
    assert kept[1]["response"] == kept[0]["response"]["b"]


def test_a_session_against_azure_is_kept_without_its_logins(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    with bare_azure(tmp_path / "azure") as server, environment(server):
        token = server.azure.tokens.issue("https://management.azure.com", "me")
        url = f"https://management.azure.com{server.azure.settings.workspace_id}"
        login = f"https://login.microsoftonline.com/{server.azure.settings.tenant}"
        with recording.recorded(path):
            for _ in range(3):
                requests.get(
                    url,
                    params={"api-version": "2024-10-01-preview"},
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=10,
                )
            requests.get(f"{login}/v2.0/.well-known/openid-configuration", timeout=10)
    (kept,) = json.loads(path.read_text())
    assert kept["method"] == "GET"
    assert kept["status"] == 200
    assert kept["response"]["properties"]["workspaceId"].startswith("00000000-")
    assert token not in path.read_text()


def test_a_verb_runs_with_its_arguments_and_its_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    command = [sys.executable, "-m", "scripts.azure.recording", str(path), "json.tool"]
    good = subprocess.run(
        [*command, "--compact"], cwd=ROOT, input="[1, 2]", capture_output=True, text=True
    )
    assert (good.returncode, good.stdout) == (0, "[1,2]\n")
    bad = subprocess.run([*command], cwd=ROOT, input="[", capture_output=True, text=True)
    assert bad.returncode == 1
    assert not path.exists()

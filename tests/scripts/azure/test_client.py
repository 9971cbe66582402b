import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.faults import Fault
from emulator.server import Server
from scripts.azure import client
from scripts.errors import CloudError, UsageError
from tests import local_azure as local
from tests.scripts.azure.stand_ins import requests_of

NAMED = {"AZURE_SUBSCRIPTION_ID": "s", "AZURE_RESOURCE_GROUP": "g", "AZURE_WORKSPACE": "w"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    values = {"subscription_id": "S", "resource_group": "G", "workspace_name": "W"}
    file.write_text(json.dumps(values))
    return file


def test_the_workspace_is_named_by_the_environment_then_by_config_json(config: Path) -> None:
    assert client._which(NAMED, config) == ("s", "g", "w")
    assert client._which({"AZURE_WORKSPACE": "w"}, config) == ("S", "G", "w")
    assert client._which({}, config) == ("S", "G", "W")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"AZURE_RESOURCE_GROUP, AZURE_WORKSPACE in \.env"):
        client._which({"AZURE_SUBSCRIPTION_ID": "s"}, tmp_path / "config.json")


def test_a_config_json_that_is_none_is_named(config: Path) -> None:
    config.write_text("{")
    with pytest.raises(UsageError, match=r"config\.json is no JSON"):
        client._which({}, config)


def token(**claims: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


@pytest.mark.parametrize(
    ("text", "who"),
    [
        (token(upn="a@example.org", oid="1"), "a@example.org"),
        (token(appid="app"), "app"),
        (token(), "unknown"),
        ("opaque", "unknown"),
    ],
)
def test_who_asks_is_read_from_the_token(text: str, who: str) -> None:
    assert client._who(text) == who


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Server]:
    """A local Azure without storage and jobs, for this test alone."""
    with local.bare_azure(tmp_path / "azure") as server:
        yield server


@pytest.mark.slow
def test_connect_finds_the_workspace_and_says_that_it_is_a_rehearsal(
    bare: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with local.environment(bare):
        cloud = client.connect()
    settings = bare.azure.settings
    assert cloud.workspace.id == settings.workspace_id
    assert (cloud.workspace.guid, cloud.workspace.api) == (settings.guid, settings.api)
    assert cloud.label() == client.REHEARSED
    assert cloud.owner == bare.env["AZURE_CLIENT_ID"]
    assert "workspace homeport in rehearsal (rehearsed, not Azure)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", path="workspaces/homeport$", status=429, retry_after=0.2),
        Fault(kind="status", path="workspaces/homeport$", status=503, retry_after=0.2),
        Fault(kind="reset", path="workspaces/homeport$"),
        Fault(kind="lost_reply", path="workspaces/homeport$"),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_a_busy_service_and_a_broken_connection_are_tried_again(bare: Server, fault: Fault) -> None:
    bare.azure.faults.add(fault)
    with local.environment(bare):
        assert client.connect().workspace.name == "homeport"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "kind", "words"),
    [
        ({"AZURE_WORKSPACE": "other"}, UsageError, "az ml workspace list --resource-group"),
        (
            {"AZURE_CLIENT_SECRET": "wrong"},
            CloudError,
            "nobody is logged in to Azure, or the login is not accepted: az login",
        ),
        (
            {"AZURE_TENANT_ID": "no tenant!"},
            UsageError,
            "the login that is set cannot be used .*: correct or unset AZURE_TENANT_ID",
        ),
        (
            {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
            CloudError,
            "could not log in: Azure's login cannot be reached .*Unable to connect to proxy.*: "
            "check the network and HTTPS_PROXY",
        ),
    ],
)
def test_a_wrong_name_or_login_ends_with_the_next_command(
    bare: Server, environ: dict[str, str], kind: type[Exception], words: str
) -> None:
    with local.environment(bare, environ), pytest.raises(kind, match=words):
        client.connect()


@pytest.mark.slow
def test_no_token_goes_into_an_error_and_a_post_that_must_not_repeat_is_sent_once(
    bare: Server,
) -> None:
    with local.environment(bare):
        cloud = client.connect()
        path = f"{cloud.workspace.id}/datastores/workspaceblobstore/listSecrets"
        bare.azure.faults.add(Fault(kind="lost_reply", method="POST", path="listSecrets"))
        body = {"expirableSecret": True, "expireAfterHours": 1}
        with pytest.raises(CloudError, match="cannot be reached") as caught:
            cloud.rest.post(path, body, client.WORKSPACE_API, again=False)
        assert "Bearer" not in str(caught.value)
        assert len(requests_of(bare, "POST", "listSecrets")) == 1
        assert cloud.rest.post(path, body, client.WORKSPACE_API)["secretsType"] == "Sas"

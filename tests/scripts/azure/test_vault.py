from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scripts.azure import vault
from scripts.errors import UsageError
from tests import local_azure as local
from train import hub_token
from train.errors import InputError, MachineError
from train.recipe import CloudConfig

ARM_ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/Homes-Vault"

VALUE = "hf_very_secret"


def cloud(key_vault_id: str = ARM_ID) -> Any:
    workspace = SimpleNamespace(key_vault_id=key_vault_id, name="w")
    return cast("Any", SimpleNamespace(workspace=workspace))


def recipe(secret: str) -> Any:
    return cast("Any", SimpleNamespace(cloud=CloudConfig(hub_token_secret=secret)))


def test_a_job_carries_the_address_of_the_secret_that_training_reads() -> None:
    address = "https://homes-vault.vault.azure.net/secrets/hub-token"
    assert vault.job_variables(cloud(), recipe("hub-token")) == {hub_token.VARIABLE: address}
    assert hub_token.ADDRESS.fullmatch(address)


def test_no_secret_is_no_variable() -> None:
    assert vault.job_variables(cloud(), recipe("")) == {}


@pytest.mark.parametrize("name", ["hf_token", "a/b", "https://elsewhere/secrets/x", "x" * 128])
def test_a_name_that_no_secret_can_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"cloud\.hub_token_secret"):
        vault.secret_uri(cloud(), name)


def test_a_workspace_without_vault_is_told_the_other_way() -> None:
    with pytest.raises(UsageError, match="make cloud-stage"):
        vault.secret_uri(cloud(""), "hub-token")


@pytest.mark.slow
def test_a_token_goes_through_the_vault_into_the_job_and_into_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts.azure.client import connect

    with local.bare_azure(tmp_path) as server:
        with local.environment(server):
            found = connect()
            address = vault.secret_uri(found, "hub-token")
            vault.put(found, "hub-token", VALUE)
        with local.environment(server, server.azure.node_environment):
            for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
                monkeypatch.delenv(name, raising=False)  # a node has its identity only
            environ = {hub_token.VARIABLE: address}
            hub_token.fetch(environ)
            assert environ.get("HF_TOKEN") == VALUE
            with pytest.raises(InputError, match="not there"):
                hub_token.fetch({hub_token.VARIABLE: f"{address}-2"})
            monkeypatch.setenv("MSI_SECRET", "wrong")
            with pytest.raises(MachineError, match="managed identity"):
                hub_token.fetch({hub_token.VARIABLE: address})
        assert server.report()["problems"] == []
    told = capsys.readouterr()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [text for text in written if VALUE.encode() in text]
    assert VALUE not in told.out + told.err

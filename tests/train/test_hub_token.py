import logging
import subprocess
import sys

import pytest

from tests.tree import ROOT
from train import hub_token
from train.errors import InputError, MachineError

ADDRESS = "https://homes-vault.vault.azure.net/secrets/hub-token"
SECRET, OWN = "hf_very_secret", "hf_own"


def test_without_a_secret_nothing_happens_and_nothing_is_imported() -> None:
    code = (
        "import sys; from train.hub_token import fetch; environ = {}; fetch(environ); "
        "assert not environ; assert 'azure.identity' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_token_that_is_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_token, "_read", lambda address, client_id: pytest.fail("was asked"))
    environ = {hub_token.VARIABLE: ADDRESS, "HF_TOKEN": OWN}
    hub_token.fetch(environ)
    assert environ.get("HF_TOKEN") == OWN


def test_the_token_is_set_and_only_the_address_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, str | None]] = []

    def read(address: str, client_id: str | None) -> str:
        asked.append((address, client_id))
        return SECRET

    monkeypatch.setattr(hub_token, "_read", read)
    environ = {hub_token.VARIABLE: ADDRESS, "DEFAULT_IDENTITY_CLIENT_ID": "cluster"}
    with caplog.at_level(logging.INFO):
        hub_token.fetch(environ)
    assert environ.get("HF_TOKEN") == SECRET
    assert asked == [(ADDRESS, "cluster")]
    assert ADDRESS in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "http://homes-vault.vault.azure.net/secrets/hub-token",
        "https://homes-vault.vault.azure.net.elsewhere.example/secrets/hub-token",
        "https://elsewhere.example/.vault.azure.net/secrets/hub-token",
        "https://user@homes-vault.vault.azure.net/secrets/hub-token",
        "https://homes-vault.vault.azure.net/keys/hub-token",
        "hub-token",
    ],
)
def test_the_identitys_token_goes_to_key_vaults_only(address: str) -> None:
    with pytest.raises(InputError, match=hub_token.VARIABLE):
        hub_token.fetch({hub_token.VARIABLE: address})


@pytest.mark.slow
def test_outside_azure_it_says_that_no_identity_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9/msi/token")
    monkeypatch.setenv("MSI_SECRET", "x")
    with pytest.raises(MachineError, match="managed identity"):
        hub_token.fetch({hub_token.VARIABLE: ADDRESS})

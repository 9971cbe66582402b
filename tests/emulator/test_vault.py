"""Key Vault's secrets, and the managed identity of nodes."""

import json

import pytest
import requests

from emulator.server import Server
from tests.local_azure import environment, session

VAULT = "https://vault.azure.net"
URL = "https://homeportrehearsal.vault.azure.net/secrets/hub-token"
QUERY = {"api-version": "7.4"}


def test_a_request_without_a_token_learns_where_to_get_one(bare: Server) -> None:
    answer = session(bare, "").get(URL, params=QUERY)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == (
        f'Bearer authorization="https://login.microsoftonline.com/{bare.env["AZURE_TENANT_ID"]}",'
        f' resource="{VAULT}"'
    )
    assert bare.report()["problems"] == []


def test_a_secret_is_put_and_read_and_never_kept(bare: Server) -> None:
    client = session(bare, VAULT)
    assert client.get(URL, params=QUERY).status_code == 404
    made = client.put(URL, params=QUERY, json={"value": "hf_secret"}).json()
    assert client.get(URL, params=QUERY).json()["value"] == "hf_secret"
    assert client.get(made["id"], params=QUERY).json()["value"] == "hf_secret"
    assert client.put(URL, params=QUERY, json={"value": 3}).status_code == 400
    assert bare.azure.secrets == {"hub-token": "hf_secret"}
    text = (bare.azure.settings.folder / "journal" / "requests.jsonl").read_text()
    assert "hf_secret" not in text
    assert json.loads(text.splitlines()[1])["response"]["value"] == "…"


def test_a_token_of_the_control_plane_does_not_open_the_vault(bare: Server) -> None:
    assert session(bare).get(URL, params=QUERY).status_code == 401


@pytest.mark.parametrize(
    ("secret", "version", "status"),
    [("", "2017-09-01", 401), ("right", "2019-08-01", 400), ("right", "2017-09-01", 200)],
)
def test_the_identity_answers_who_knows_its_secret(
    bare: Server, secret: str, version: str, status: int
) -> None:
    node = bare.azure.node_environment
    answer = requests.get(
        node["MSI_ENDPOINT"],
        params={"api-version": version, "resource": VAULT},
        headers={"secret": node["MSI_SECRET"] if secret else "guess"},
        timeout=5,
    )
    assert answer.status_code == status
    if status == 200:
        claims = bare.azure.tokens.check(answer.json()["access_token"], VAULT)
        assert claims["oid"] == bare.azure.settings.guid


@pytest.mark.slow
def test_azure_identity_on_a_node_gets_a_token_that_opens_the_vault(bare: Server) -> None:
    from azure.identity import ManagedIdentityCredential

    bare.azure.secrets["hub-token"] = "hf_secret"
    with environment(bare, bare.azure.node_environment), ManagedIdentityCredential() as identity:
        token = identity.get_token(f"{VAULT}/.default").token
    client = session(bare, "")
    client.headers["Authorization"] = f"Bearer {token}"
    assert client.get(URL, params=QUERY).json()["value"] == "hf_secret"

"""Logging in: what azure-identity asks, and what it is refused."""

from typing import Any

import pytest

from emulator.server import Server
from emulator.tenants import ABROAD
from tests.local_azure import environment, session

LOGIN = "https://login.microsoftonline.com"
SCOPE = "https://management.azure.com/.default"


def ask(server: Server, tenant: str = "", **changes: str) -> Any:
    """The answer to a request for a token; `changes` go over the right one."""
    form = {
        "grant_type": "client_credentials",
        "client_id": server.env["AZURE_CLIENT_ID"],
        "client_secret": server.env["AZURE_CLIENT_SECRET"],
        "scope": SCOPE,
        **changes,
    }
    tenant = tenant or server.env["AZURE_TENANT_ID"]
    return session(server, "").post(f"{LOGIN}/{tenant}/oauth2/v2.0/token", data=form)


def test_the_secret_gets_a_token_for_what_was_asked(bare: Server) -> None:
    token = ask(bare, scope="https://vault.azure.net/.default openid").json()["access_token"]
    claims = bare.azure.tokens.check(token, "https://vault.azure.net")
    assert claims["tid"] == bare.env["AZURE_TENANT_ID"]
    assert claims["oid"] == bare.env["AZURE_CLIENT_ID"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"client_secret": "guess"}, 401, "AADSTS7000215"),
        ({"client_id": "somebody"}, 400, "AADSTS700016"),
        ({"grant_type": "password"}, 400, "AADSTS70003"),
        ({"scope": "https://management.azure.com"}, 400, "AADSTS1002012"),
        ({"tenant": "elsewhere"}, 400, "AADSTS90002"),
    ],
)
def test_all_else_is_refused_by_entras_codes(
    bare: Server, changes: dict[str, str], status: int, code: str
) -> None:
    answer = ask(bare, **changes)
    assert answer.status_code == status
    assert answer.json()["error_description"].startswith(code)


def test_the_tenant_abroad_issues_tokens_of_its_own(bare: Server) -> None:
    token = ask(bare, tenant=ABROAD).json()["access_token"]
    claims = bare.azure.tokens.check(token, "https://management.azure.com")
    assert (claims["tid"], claims["iss"]) == (ABROAD, f"https://sts.windows.net/{ABROAD}/")
    client = session(bare, "")
    client.headers["Authorization"] = f"Bearer {token}"
    url = f"https://management.azure.com{bare.azure.settings.workspace_id}"
    answer = client.get(url, params={"api-version": "2024-10-01-preview"})
    assert answer.status_code == 401
    assert (
        f"must match the tenant 'https://sts.windows.net/{bare.env['AZURE_TENANT_ID']}/'"
        in (answer.json()["error"]["message"])
    )


def test_neither_secret_nor_token_is_in_the_journal(bare: Server) -> None:
    token = ask(bare).json()["access_token"]
    text = (bare.azure.settings.folder / "journal" / "requests.jsonl").read_text()
    assert bare.env["AZURE_CLIENT_SECRET"] not in text
    assert token not in text


def test_the_discovery_documents_lead_to_the_token(bare: Server) -> None:
    client, tenant = session(bare, ""), bare.env["AZURE_TENANT_ID"]
    instances = client.get(f"{LOGIN}/common/discovery/instance?api-version=1.1").json()
    found = client.get(instances["tenant_discovery_endpoint"]).json()
    assert found["token_endpoint"] == f"{LOGIN}/{tenant}/oauth2/v2.0/token"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ClientSecretCredential", "DefaultAzureCredential"])
def test_azure_identity_logs_in(bare: Server, kind: str) -> None:
    import azure.identity

    with environment(bare):
        keys = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
        given = [bare.env[key] for key in keys] if kind == "ClientSecretCredential" else []
        with getattr(azure.identity, kind)(*given) as credential:
            token = credential.get_token(SCOPE).token
    assert bare.azure.tokens.check(token, "https://management.azure.com")
    assert bare.report()["problems"] == []
    assert set(bare.report()["hosts"]) == {"login.microsoftonline.com"}

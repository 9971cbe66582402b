"""Which resource is used, by whose token, and what it can train."""

from typing import Any

import pytest

from emulator.openai import accounts as resources
from emulator.server import Server
from scripts.azure.client import ARM_SCOPE, Cloud
from scripts.azure.openai import accounts
from scripts.azure.openai.accounts import Account, InTenant
from scripts.errors import UsageError
from tests.scripts.azure.openai.conftest import RECIPE, arm_id
from train.recipe import Recipe, load


def test_the_only_one_of_the_group_is_taken(cloud: Cloud, recipe: Recipe) -> None:
    found = accounts.find(cloud, recipe)
    assert (found.name, found.endpoint) == (
        "homeportrehearsal",
        "https://homeportrehearsal.openai.azure.com",
    )
    assert accounts.target(cloud, recipe).id == found.id
    assert found.group == cloud.workspace.resource_group
    named = load(RECIPE, ["cloud.openai.resource=HomeportRehearsal"])
    assert accounts.find(cloud, named).id == found.id


def test_one_elsewhere_is_named_by_its_id(azure: Server, cloud: Cloud) -> None:
    elsewhere = load(RECIPE, [f"cloud.openai.resource={arm_id(azure, 'homeportelsewhere')}"])
    assert accounts.find(cloud, elsewhere).location == "swedencentral"
    assert {each.name for each in accounts.everywhere(cloud)} == {
        "homeportrehearsal",
        "homeportelsewhere",
    }


@pytest.mark.slow
@pytest.mark.parametrize("named", ["/subscriptions/s/resourceGroups/g", "a/b"])
def test_what_is_no_id_of_a_resource_is_refused(cloud: Cloud, named: str) -> None:
    wrong = load(RECIPE, [f"cloud.openai.resource={named}"])
    with pytest.raises(UsageError, match="give the ARM id of a Microsoft"):
        accounts.find(cloud, wrong)


@pytest.mark.slow
def test_an_id_that_is_not_there_is_named(cloud: Cloud, home: Account) -> None:
    missing = load(RECIPE, [f"cloud.openai.deploy_to={home.id}x"])
    with pytest.raises(UsageError, match=r"cloud\.openai\.deploy_to: there is no resource"):
        accounts.target(cloud, missing)


def test_a_resource_abroad_is_asked_with_its_tenants_token(azure: Server, cloud: Cloud) -> None:
    tenant = resources.of(azure.azure)["homeportabroad"].tenant
    place = arm_id(azure, "homeportabroad")
    there = load(
        RECIPE, [f"cloud.openai.deploy_to={place}", f"cloud.openai.deploy_tenant={tenant}"]
    )
    found = accounts.target(cloud, there)
    assert (found.name, found.tenant) == ("homeportabroad", tenant)
    assert accounts.bearer(found) != cloud.credential.get_token(ARM_SCOPE).token


def test_the_tenant_goes_with_every_token() -> None:
    asked: list[Any] = []

    class Credential:
        def get_token(self, *scopes: str, **options: Any) -> Any:
            asked.append((scopes, options))

    credential: Any = Credential()
    InTenant(credential, "t").get_token("scope", claims="c")
    assert asked == [(("scope",), {"claims": "c", "tenant_id": "t"})]


def test_a_key_is_the_resources_own(azure: Server, home: Account) -> None:
    assert accounts.key(home) == resources.of(azure.azure)["homeportrehearsal"].keys["key1"]


def test_a_model_that_is_listed_without_fine_tuning_is_refused(
    home: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    class Rows:
        def all(self, path: str, api: str) -> list[Any]:
            assert path == f"{home.id}/models"
            return [
                {"name": "gpt-a", "version": "1", "capabilities": {"fineTune": "true"}},
                {"name": "gpt-b", "version": "1", "capabilities": {}},
            ]

    import dataclasses

    rest: Any = Rows()
    there = dataclasses.replace(home, rest=rest)
    accounts.check_model(there, "gpt-a-1")
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match="does not fine-tune; it fine-tunes: gpt-a-1"):
        accounts.check_model(there, "gpt-b-1")
    accounts.check_model(there, "gpt-c-1")
    assert "does not list gpt-c-1" in capsys.readouterr().err

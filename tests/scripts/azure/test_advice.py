"""What a login tells goes over what is written here; what it may not tell is only a note."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.server import Server
from scripts.azure import advice, foundation, prices, quota
from scripts.azure.openai import accounts
from scripts.errors import CloudError, UsageError
from tests import local_azure
from tests.scripts.azure.stand_ins import cloud_of
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe


@pytest.fixture(autouse=True)
def list_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prices.OWN, raising=False)


def recipe(name: str, *overrides: str) -> Recipe:
    return recipes.load(ROOT / f"recipes/{name}.yaml", list(overrides), environ={})


def test_the_text_has_the_table_the_reasons_and_the_next_command() -> None:
    found = advice.advise(recipe("gpt-oss-20b-ja"), None)
    lines = advice.text(found, "mine.yaml").splitlines()
    assert lines[0].endswith("; not asked (offline)")
    assert [line.split()[0] for line in lines[3:7]] == [
        *("→", "registry_pipeline", "finetuning_job", "azure_openai")
    ]
    assert "  ignores  lora.target_parameters" in lines
    assert lines[-1] == "next:   make cloud-plan RECIPE=mine.yaml"
    assert max(map(len, lines)) <= 110


def test_the_next_command_changes_the_recipe_where_another_route_is_taken() -> None:
    found = advice.advise(recipe("phi-3-mini-ultrachat"), None)
    assert advice.command(found, "mine.yaml") == (
        'make cloud-plan RECIPE=mine.yaml SET="cloud.route=command_job"'
    )


def test_where_nothing_is_open_nothing_is_proposed() -> None:
    made = recipe("azure-openai-ja", "method=dpo")
    found = advice.advise(made, None)
    assert found.taken == ""
    assert advice.text(found, "mine.yaml").endswith("no route is open: choose another model.")


def test_it_is_json_too() -> None:
    for name in ("tiny-ja", "azure-openai-ja"):
        values = advice.as_json(advice.advise(recipe(name), None))
        assert json.loads(json.dumps(values, allow_nan=False))["recipe"] == name


def refuse(error: Exception) -> Any:
    def ask(*_: Any) -> Any:
        raise error

    return ask


def test_what_may_not_be_asked_is_a_note_and_the_file_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foundation, "read", refuse(CloudError("no network")))
    monkeypatch.setattr(accounts, "in_group", refuse(CloudError("no role")))
    monkeypatch.setattr(quota, "_usages", refuse(CloudError("no role either")))
    found = advice.advise(recipe("mistral-7b-samsum"), cloud_of())
    assert found.taken == "finetuning_job"
    assert "registry azureml was not asked: no network" in found.notes
    assert "Azure OpenAI resources were not asked: no role" in found.notes


def test_what_the_registry_lacks_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundation, "read", refuse(UsageError("registry azureml has none")))
    monkeypatch.setattr(accounts, "in_group", lambda cloud: [])
    monkeypatch.setattr(quota, "_usages", lambda cloud: [])
    found = advice.advise(recipe("mistral-7b-samsum"), cloud_of())
    verdicts = {verdict.route: verdict for verdict in found.verdicts}
    assert verdicts["finetuning_job"].reason == "registry azureml has none"
    assert found.taken == "command_job"


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Server]:
    with local_azure.bare_azure(tmp_path) as server, local_azure.environment(server):
        yield server


@pytest.mark.slow
def test_a_login_is_asked_for_registry_quota_and_resources(azure: Server) -> None:
    from scripts.azure.client import connect

    cloud = connect()
    found = advice.advise(recipe("mistral-7b-samsum"), cloud)
    assert (found.asked, found.label) == ("homeport", "rehearsed, not Azure")
    verdicts = {verdict.route: verdict for verdict in found.verdicts}
    assert "of registry azureml" in verdicts["finetuning_job"].reason
    found = advice.advise(recipe("azure-openai-ja"), cloud)
    assert "resource homeportrehearsal" in found.verdicts[3].reason
    unknown = dataclasses.replace(
        recipe("mistral-7b-samsum"),
        cloud=dataclasses.replace(recipe("mistral-7b-samsum").cloud, model="azureml/nothing"),
    )
    found = advice.advise(unknown, cloud)
    assert "has no model nothing" in found.verdicts[2].reason

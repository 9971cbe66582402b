"""Prices of Azure OpenAI: by the beginning of a model's name, the user's own over ours."""

from pathlib import Path

import pytest

from scripts.azure import prices as machines
from scripts.azure.openai import prices
from scripts.errors import UsageError


def test_the_longest_name_that_fits_is_taken() -> None:
    mini = prices.training("gpt-4.1-mini-2025-04-14", "GlobalStandard")
    whole = prices.training("gpt-4.1-2025-04-14", "GlobalStandard")
    assert mini.price and whole.price and mini.price < whole.price
    assert not mini.checked and "memory" in mini.source


def test_hosting_is_by_sku_in_any_case_and_the_developers_is_free() -> None:
    assert prices.hosting("standard").price == prices.hosting("Standard").price == 1.7
    assert prices.hosting("developertier").price == 0
    assert prices.hosting("ProvisionedManaged").price is None


def test_what_nobody_wrote_down_is_unknown_and_never_zero() -> None:
    assert prices.training("o9", "Standard").price is None
    assert machines.OWN in prices.unknown("training o9", "training_per_million", "{o9: …}")


def test_the_users_own_prices_go_over_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.yml"
    own.write_text(
        "instances: {}\n"
        "openai:\n"
        "  hosting_per_hour: {Standard: 2}\n"
        "  training_per_million: {o9: {Standard: 3}, gpt-4.1-mini: {Standard: 1}}\n"
    )
    monkeypatch.setenv(machines.OWN, str(own))
    assert prices.hosting("Standard").price == 2
    assert prices.training("o9", "Standard").price == 3
    assert prices.training("gpt-4.1-mini", "Standard").price == 1
    assert prices.training("gpt-4.1-mini", "GlobalStandard").price == 5
    assert machines.find("Standard_DS3_v2").per_hour  # the machines' table reads the same file


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(machines.OWN, str(tmp_path / "none.yml"))
    with pytest.raises(UsageError, match=r"none\.yml cannot be read"):
        prices.hosting("Standard")

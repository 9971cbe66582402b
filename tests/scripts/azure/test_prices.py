"""The table of machines: complete, dated, and the user's own over it; no price is guessed."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scripts.azure import prices
from scripts.errors import UsageError
from tests.drawn import QUICK, YAML
from tests.tree import ROOT
from train import gpus

TABLE = prices.table()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that CLOUD_PRICES names; not there yet."""
    file = tmp_path / "mine.yml"
    monkeypatch.setenv(prices.OWN, str(file))
    return file


def test_every_machine_is_described_and_says_where_its_price_is_from() -> None:
    assert len(TABLE.instances) > 30
    for instance in TABLE.instances.values():
        assert instance.cores > 0
        assert instance.memory_gib > 0
        assert instance.family.startswith("standard")
        assert instance.per_hour
        assert instance.as_of
        assert instance.source
        assert bool(instance.gpus) == bool(instance.gpu) == bool(instance.gpu_memory_gib)


def test_local_check_knows_every_gpu_of_the_table() -> None:
    for instance in TABLE.instances.values():
        if instance.gpu:
            gpu = gpus.find(instance.gpu)
            assert 0.85 < gpu.memory / gpus.GIB / instance.gpu_memory_gib <= 1, instance.name


def test_price_rises_with_the_number_of_gpus_of_a_family() -> None:
    """A slip of a digit in the table shows here."""
    for family in {i.family for i in TABLE.instances.values() if i.gpus}:
        machines = [i for i in TABLE.instances.values() if i.family == family]
        per_gpu = [i.price() / i.gpus for i in machines]
        assert max(per_gpu) < 2.5 * min(per_gpu), family


def test_every_machine_of_our_recipes_is_in_the_table() -> None:
    for path in (ROOT / "recipes").glob("*.yaml"):
        cloud = yaml.safe_load(path.read_text()).get("cloud", {})
        for key in ("instance_type", "serve_instance_type"):
            if key in cloud:
                prices.find(cloud[key])


@pytest.mark.parametrize(
    "name", ["Standard_NC40ads_H100_v5", "standard_nc40ads_h100_v5", "STANDARD_NC40ADS_H100_V5"]
)
def test_a_machine_is_found_in_any_case(name: str) -> None:
    found = prices.find(name)
    assert (found.name, found.gpus, found.cores) == ("Standard_NC40ads_H100_v5", 1, 40)


def test_an_unknown_machine_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'Standard_NC40ads_H100'.*Standard_NC40ads_H100_v5\. If"):
        prices.find("Standard_NC40ads_H100")


@pytest.mark.parametrize(
    ("name", "count", "cores"),
    [
        ("Standard_DS3_v2", 1, 8),
        ("Standard_DS3_v2", 5, 24),
        ("Standard_DS3_v2", 10, 48),
        ("Standard_NC4as_T4_v3", 2, 12),
        ("Standard_NC40ads_H100_v5", 1, 40),
        ("Standard_NC24ads_A100_v4", 3, 72),
    ],
    ids=["1.2 -> 2", "6", "12", "2.4 -> 3", "H100: no reserve", "A100: no reserve"],
)
def test_quota_of_an_endpoint_holds_a_reserve_except_for_the_large_gpus(
    name: str, count: int, cores: int
) -> None:
    assert prices.find(name).serving_cores(count) == cores


def test_own_prices_go_over_the_table(own: Path) -> None:
    own.write_text("as_of: '2026-10-01'\ninstances: {standard_ds3_v2: {per_hour: 0.2}}\n")
    found = prices.find("Standard_DS3_v2")
    assert (found.per_hour, found.cores, found.checked) == (0.2, 4, True)
    assert (found.as_of, found.source) == ("2026-10-01", str(own))
    assert prices.find("Standard_DS2_v2").source != str(own)


def test_own_machines_are_added(own: Path) -> None:
    row = "{cores: 2, memory_gib: 4, family: standardXFamily, per_hour: 1, spot_per_hour: 0.5}"
    own.write_text(f"instances: {{Standard_X2: {row}}}\n")
    assert prices.find("standard_x2").spot_per_hour == 0.5


def test_a_price_that_is_not_known_is_asked_for(own: Path) -> None:
    own.write_text("instances: {Standard_DS3_v2: {per_hour: null}}\n")
    found = prices.find("Standard_DS3_v2")
    assert found.per_hour is None
    with pytest.raises(UsageError, match=r"Standard_DS3_v2 is not known: write .*CLOUD_PRICES"):
        found.price()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instances: {Standard_DS3_v2: {per_hour: 0}}", "per_hour is 0: give dollars above 0"),
        ("instances: {Standard_DS3_v2: {per_hour: free}}", "per_hour is free"),
        ("instances: {Standard_DS3_v2: {spot_per_hour: -1}}", "spot_per_hour is -1"),
        ("instances: {Standard_DS3_v2: {per_hours: 1}}", "per_hours; did you mean per_hour"),
        ("instances: {Standard_DS3_v2: 0.2}", "Standard_DS3_v2 must be fields and values"),
        ("instances: {Standard_X2: {per_hour: 1}}", "Standard_X2: cores is missing"),
        ("Standard_DS3_v2: {per_hour: 1}", "no section `instances`"),
        ("prices: {}\ninstances: {}", "unknown section prices"),
        ("{", "is not YAML"),
    ],
)
def test_an_own_file_that_does_not_fit_is_refused(own: Path, text: str, said: str) -> None:
    own.write_text(text)
    with pytest.raises(UsageError, match=said):
        prices.table()


def test_an_own_file_that_is_not_there_is_named(own: Path) -> None:
    with pytest.raises(UsageError, match=f"CLOUD_PRICES={own} cannot be read"):
        prices.table()


@QUICK
@given(st.data())
def test_any_file_of_prices_is_taken_or_refused_by_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    file = tmp_path / "mine.yml"
    monkeypatch.setenv(prices.OWN, str(file))
    name = data.draw(st.sampled_from(("Standard_D8s_v3", "Standard_New", "1", "[]")))
    key = data.draw(st.sampled_from(("per_hour", "cores", "source", "gpu", "as_of", "family")))
    section = data.draw(st.sampled_from(("finetuning", "sources", "as_of", "regoin")))
    values = [data.draw(YAML) for _ in range(3)]
    text = f"instances:\n  {name}:\n    {key}: {values[0]}\n{section}: {values[1]}\n{values[2]}"
    file.write_bytes(data.draw(st.just(text.encode("utf-8", "replace")) | st.binary(max_size=40)))
    for ask in (
        prices.table,
        lambda: prices.per_million("azureml/x"),
        lambda: prices.per_hour("x"),
    ):
        try:
            ask()
        except UsageError as error:
            assert str(error)

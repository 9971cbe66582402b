"""The plan says what would run and what it can cost; nothing starts before somebody agrees."""

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from emulator.server import Server
from scripts.azure import images, plan, prices, specs
from scripts.azure.routes import agree, text
from scripts.azure.written import write
from scripts.errors import UsageError
from tests import local_azure
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

PATH = ROOT / "recipes/tiny-ja.yaml"
H100 = "Standard_NC40ads_H100_v5"
REFERENCE = "mine.azurecr.io/homeport@sha256:" + "ab" * 32


@pytest.fixture(autouse=True)
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built on the machine that tests is not the tests' matter."""
    monkeypatch.setattr(images, "find", lambda *_: None)
    monkeypatch.delenv(prices.OWN, raising=False)


def recipe(**cloud: object) -> Recipe:
    tiny = recipes.load(PATH, environ={})
    changed: Any = cloud
    return dataclasses.replace(tiny, cloud=dataclasses.replace(tiny.cloud, **changed))


def rows(made: plan.Plan) -> str:
    return " ".join(text(plan.planned(made)).split())


def confirm(made: plan.Plan, yes: bool, what: str = "train") -> None:
    agree(plan.planned(made), what, yes)


def test_the_ceiling_is_machines_times_hours_times_price() -> None:
    mine = recipe(instance_type=H100, nodes=2, max_hours=3.5)
    assert plan.ceiling(mine) == pytest.approx(2 * 3.5 * 6.98)
    made = plan.build(mine, PATH)
    assert made.train.ceiling == pytest.approx(48.86)
    assert "ends after 3.5 h at the latest costs at most $48.86 (2 x 3.5 h x $6.98)" in rows(made)


def test_the_endpoint_costs_until_it_is_deleted() -> None:
    made = plan.build(recipe(serve_instance_type=H100, serve_instances=2, expires_hours=10), PATH)
    assert made.serve.per_hour == pytest.approx(13.96)
    assert made.serve.until_expiry == pytest.approx(139.6)
    assert "$13.96 per hour until `make cloud-down`; $139.60 in the 10 h" in rows(made)


def test_without_a_workspace_the_plan_says_what_it_could_not_ask() -> None:
    text = rows(plan.build(recipe(), PATH))
    assert "workspace not asked (offline)" in text
    assert "image homeport-train:cpu: not built yet" in text
    assert "tiny-ja-… (by the workspace)" in text
    assert text.count("not asked (offline)") == 3


def test_every_choice_has_its_reason() -> None:
    mine = recipe(instance_type="Standard_NC96ads_A100_v4", compute="gpu", spot=True)
    said = {d.what: f"{d.value} ({d.reason})" for d in plan.build(mine, PATH).decisions}
    assert said["train on"] == "cuda (Standard_NC96ads_A100_v4 has 4 x A100-80)"
    assert said["serve on"] == "cpu (Standard_E4s_v3 has no GPU)"
    assert said["processes"] == "4 on each machine (one per GPU)"
    assert said["machines"] == "a cluster with 0 nodes at rest (cloud.compute is gpu)"
    assert said["priority"].startswith("low (cloud.spot is true")
    assert said["timeouts"].startswith("120 s generation, 150 s request, 190 s client")


def test_the_spot_price_lowers_no_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = recipe(instance_type=H100, max_hours=2, spot=True)
    made = plan.build(mine, PATH)
    assert any("low-priority price" in note for note in made.notes)
    own = tmp_path / "own.yml"
    own.write_text(f"instances: {{{H100}: {{spot_per_hour: 1.5}}}}\n")
    monkeypatch.setenv(prices.OWN, str(own))
    made = plan.build(mine, PATH)
    assert made.train.ceiling == pytest.approx(13.96)
    assert "costs at most $13.96 (1 x 2 h x $6.98); about $3.00 at the spot price" in rows(made)


def test_a_price_that_is_not_known_is_asked_for_and_never_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.yml"
    own.write_text("instances: {Standard_E4s_v3: {per_hour: null}}\n")
    monkeypatch.setenv(prices.OWN, str(own))
    made = plan.build(recipe(), PATH)
    assert (made.train.ceiling, made.serve.per_hour) == (None, None)
    assert "costs at most: not known" in rows(made)
    assert "write instances: {Standard_E4s_v3: {per_hour: …}}" in rows(made)
    for what in ("train", "deploy"):
        with pytest.raises(UsageError, match="is not known: write"):
            confirm(made, True, what)
    with pytest.raises(UsageError, match="is not known: write"):
        plan.ceiling(recipe())


@pytest.mark.parametrize(
    ("cloud", "said"),
    [
        ({"max_hours": float("inf")}, "needs a time limit"),
        ({"endpoint": "x"}, "the endpoint's name"),
        ({"compute": "gpu-1"}, "the cluster's name"),
        ({"instance_type": "Standard_H100"}, "is not in azure/prices.yml"),
    ],
)
def test_what_azure_would_refuse_is_refused_here(cloud: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan.build(recipe(**cloud), PATH)


def test_the_plan_is_json_too() -> None:
    values = json.loads(json.dumps(plan.as_json(plan.build(recipe(), PATH)), allow_nan=False))
    assert values["train"]["ceiling"] == pytest.approx(0.252)
    assert values["train"]["instance"]["name"] == "Standard_E4s_v3"
    assert values["quota"][0]["enough"] is None
    assert values["model"] == "tiny-ja"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_yes_agrees_and_the_cost_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    confirm(plan.build(recipe(), PATH), True)
    assert "costs at most $0.25 (1 x 1 h x $0.252)" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["\n", "n\n", "", "maybe\n"])
def test_anything_but_yes_on_a_terminal_starts_nothing(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(UsageError):
        confirm(plan.build(recipe(), PATH), False)


def test_yes_on_a_terminal_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("Yes\n"))
    confirm(plan.build(recipe(), PATH), False, "deploy")
    assert "$0.25 per hour" in capsys.readouterr().err


def test_without_a_terminal_yes_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    with pytest.raises(UsageError, match="YES=1"):
        confirm(plan.build(recipe(), PATH), False)


def test_a_rehearsal_costs_nothing_so_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    made = dataclasses.replace(plan.build(recipe(), PATH), label="rehearsed, not Azure")
    confirm(made, False)
    assert "nothing (rehearsed, not Azure)" in capsys.readouterr().err


def test_too_little_quota_is_said_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = plan.build(recipe(), PATH)
    short = tuple(dataclasses.replace(q, limit=2, used=1) for q in made.quota)
    confirm(dataclasses.replace(made, quota=short), True)
    said = capsys.readouterr().err
    assert "train needs 4 of standardESv3Family (1 x 4 cores), but only 1 of 2 are free" in said
    assert "deploy needs" not in said


def test_written_specs_are_complete_and_fit_together(tmp_path: Path) -> None:
    made = plan.build(recipe(compute="mine"), PATH, job="tiny-1f", references={"train": REFERENCE})
    files = list(write(tmp_path / "specs", recipe(compute="mine"), made))
    assert {file.stem for file in files} == {*specs.LOADERS, "recipe"}
    read = {file.stem: yaml.safe_load(file.read_text()) for file in files}
    assert read["environment-train"]["image"] == REFERENCE
    assert read["job"]["environment"] == "azureml:homeport-train:abababababab"
    assert read["job"]["name"] == "tiny-1f"
    assert read["job"]["compute"] == "azureml:mine"
    data = read["data"]
    assert read["job"]["inputs"]["train"]["path"] == f"azureml:{data['name']}:{data['version']}"
    assert Path(data["path"]).is_file()
    assert Path(read["job"]["inputs"]["recipe"]["path"]).is_file()
    assert read["model"]["path"].startswith("azureml://jobs/tiny-1f/")
    assert read["deployment"]["endpoint_name"] == read["endpoint"]["name"]
    unpushed = (tmp_path / "specs/environment-serve.yml").read_text()
    assert "not in the registry yet: make cloud-push" in unpushed


@pytest.mark.slow
def test_the_sdk_takes_the_written_specs_as_they_stand(tmp_path: Path) -> None:
    import azure.ai.ml as sdk

    mine = recipe(compute="mine")
    for file in write(tmp_path, mine, plan.build(mine, PATH)):
        if file.stem != "recipe":
            assert getattr(sdk, specs.LOADERS[file.stem])(file).name


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Server]:
    with local_azure.bare_azure(tmp_path) as server, local_azure.environment(server):
        yield server


@pytest.mark.slow
def test_with_a_workspace_the_plan_knows_names_and_quota(bare: Server) -> None:
    from scripts.azure.client import connect

    made = plan.build(recipe(), PATH, connect(), references={"train": REFERENCE})
    assert (made.workspace, made.location) == ("homeport", "eastus")
    assert made.label == "rehearsed, not Azure"
    assert made.endpoint.startswith("tiny-ja-")
    assert made.job.startswith("tiny-ja-")
    assert [q.unknown for q in made.quota] == ["", ""]
    assert made.train.image.state == REFERENCE
    assert bare.azure.journal.report()["problems"] == []

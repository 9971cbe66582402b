"""Each route is a module of the protocol, and the verbs find the right one."""

import dataclasses
import typing
from typing import Any

import pytest

from scripts.azure import routes
from scripts.azure.client import NotFound
from scripts.azure.routes import (
    Cost,
    Planned,
    Route,
    Trained,
    azure_openai,
    command_job,
    finetuning_job,
    registry_pipeline,
)
from scripts.errors import CloudError, UsageError
from tests.scripts.azure.stand_ins import cloud_of
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import CloudConfig, Recipe

ROUTES: tuple[Route, ...] = (command_job, registry_pipeline, finetuning_job, azure_openai)
"""mypy holds each module to the protocol here."""


def recipe(route: str = "command_job") -> Recipe:
    tiny = recipes.load(ROOT / "recipes/tiny-ja.yaml", environ={})
    changed: Any = {"route": route, "model": "m"}
    return dataclasses.replace(tiny, cloud=dataclasses.replace(tiny.cloud, **changed))


def test_every_route_that_a_recipe_may_name_has_its_module() -> None:
    names = typing.get_args(typing.get_type_hints(CloudConfig)["route"])
    assert [routes.of(recipe(name)) for name in names] == list(ROUTES)
    assert len({route.TITLE for route in ROUTES}) == len(ROUTES)


def test_every_route_can_do_what_the_verbs_ask() -> None:
    asked = [name for name in vars(Route) if not name.startswith("_")]
    assert {"plan", "train", "deploy", "ask"} <= set(asked)
    for route in ROUTES:
        assert [name for name in asked if not callable(getattr(route, name))] == []


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        ("Command", command_job),
        ("Pipeline", registry_pipeline),
        ("FineTuning", finetuning_job),
        ("Sweep", command_job),
    ],
)
def test_a_job_of_azure_ml_is_read_by_its_kind_whatever_the_recipes_route(
    kind: str, module: Route
) -> None:
    cloud = cloud_of(get=lambda path, **_: {"name": "j", "properties": {"jobType": kind}})
    assert routes.of_job(cloud, recipe(), "j") == module
    assert routes.of_job(cloud, recipe("azure_openai"), "j") == module


def test_without_a_job_the_recipes_route_is_taken() -> None:
    assert routes.of_job(cloud_of(), recipe("azure_openai"), "") == azure_openai


def test_a_job_of_azure_openai_needs_its_recipe() -> None:
    assert routes.of_job(cloud_of(), recipe("azure_openai"), "ftjob-1") == azure_openai
    with pytest.raises(UsageError, match="ftjob-1 is a job of Azure OpenAI: add RECIPE="):
        routes.of_job(cloud_of(), recipe(), "ftjob-1")


def test_a_job_that_is_not_there_is_said() -> None:
    def none(path: str, **_: Any) -> Any:
        raise NotFound("none", 404)

    with pytest.raises(CloudError, match="there is no job nowhere"):
        routes.of_job(cloud_of(get=none), recipe(), "nowhere")


def planned(**more: Any) -> Planned:
    cost = Cost(line="costs at most $1", **more)
    return Planned(rows=(("recipe", "r"), ("", "x")), values={}, train=cost, deploy=cost)


def test_a_plan_is_a_table_for_people() -> None:
    assert routes.text(planned()) == "recipe  r\n        x"


def test_what_may_come_in_the_way_is_said_before_the_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    routes.agree(planned(warnings=("quota:  too small",)), "train", True)
    assert capsys.readouterr().err == "quota:  too small\ncost:   costs at most $1\n"


def test_what_has_no_known_price_is_not_started() -> None:
    with pytest.raises(UsageError, match="the price of x is not known"):
        routes.agree(planned(unknown="the price of x is not known."), "train", True)


def test_a_job_that_nobody_waited_for_tells_no_model() -> None:
    assert Trained(job="j", status="Running").as_json() == {"job": "j", "status": "Running"}
    done = Trained(job="j", status="Completed", model="m:1", hours=0.123456, values={"bytes": 1})
    assert done.as_json() == {
        "job": "j",
        "status": "Completed",
        "hours": 0.1235,
        "cost_at_most": None,
        "model": "m:1",
        "bytes": 1,
    }

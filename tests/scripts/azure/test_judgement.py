"""Which route is open to which recipe, at what cost, and which one we would take."""

import dataclasses
from datetime import date
from typing import Any

import pytest

from scripts.azure import foundation, judgement, prices
from scripts.azure.judgement import Facts, Verdict
from scripts.azure.quota import Quota
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe


@pytest.fixture(autouse=True)
def list_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prices.OWN, raising=False)


def recipe(name: str, *overrides: str) -> Recipe:
    return recipes.load(ROOT / f"recipes/{name}.yaml", list(overrides), environ={})


def judged(made: Recipe, facts: Facts | None = None) -> dict[str, Verdict]:
    return {verdict.route: verdict for verdict in judgement.judge(made, facts or Facts())}


def states(made: Recipe, facts: Facts | None = None) -> list[str]:
    return [verdict.state for verdict in judged(made, facts).values()]


def taken(made: Recipe, facts: Facts | None = None) -> str:
    best, _ = judgement.take(made, judgement.judge(made, facts or Facts()))
    return best.route if best else ""


@pytest.mark.parametrize(
    ("name", "expected", "chosen"),
    [
        ("tiny-ja", ["open", "closed", "closed", "closed"], "command_job"),
        ("tiny-ja-dpo", ["open", "closed", "closed", "closed"], "command_job"),
        ("gpt-oss-20b-ja", ["open", "open", "closed", "open"], "command_job"),
        ("phi-3-mini-ultrachat", ["open", "retired", "retired", "closed"], "command_job"),
        ("mistral-7b-samsum", ["open", "open", "open", "closed"], "finetuning_job"),
        ("azure-openai-ja", ["closed", "closed", "closed", "open"], "azure_openai"),
    ],
)
def test_each_recipe_has_its_open_routes_and_one_that_we_take(
    name: str, expected: list[str], chosen: str
) -> None:
    made = recipe(name)
    assert states(made) == expected
    assert taken(made) == chosen


def test_a_retired_model_is_named_with_its_day() -> None:
    found = judged(recipe("phi-3-mini-ultrachat"))["registry_pipeline"]
    assert found.reason.endswith("the fine-tuning of Phi-3-mini-4k-instruct on 2025-08-30")
    known = foundation.known(recipe("phi-3-mini-ultrachat"))
    assert known
    assert not known.is_retired(date(2025, 8, 29))


def test_costs_are_machines_times_hours_times_price() -> None:
    made = recipe("mistral-7b-samsum", "cloud.max_hours=2")
    found = judged(made)["finetuning_job"]
    assert found.ceiling == pytest.approx(2 * 7.346)
    assert found.per_hour == pytest.approx(3.673)
    assert found.train == "costs at most $14.69 (1 x 2 h x Standard_NC48ads_A100_v4)"


def test_a_machine_that_will_not_do_is_replaced_by_the_cheapest_that_does() -> None:
    made = recipe("mistral-7b-samsum", "cloud.instance_type=Standard_NC4as_T4_v3")
    found = judged(made)
    better = foundation.cheapest(foundation.known(made) or pytest.fail(), "train")
    assert better
    assert found["finetuning_job"].change == (f"cloud.instance_type={better.name}",)
    (route, machine) = found["command_job"].change
    assert route == "cloud.route=command_job"
    assert prices.find(machine.rpartition("=")[2]).gpu_memory_gib > 16
    assert "though not on Standard_NC4as_T4_v3" in found["command_job"].reason


def test_the_change_leads_to_the_route(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gpt-oss-20b-ja", "phi-3-mini-ultrachat", "mistral-7b-samsum"):
        for verdict in judged(recipe(name)).values():
            if verdict.state != "closed":
                changed = recipe(name, *verdict.change)
                assert changed.cloud.route == verdict.route
                assert judged(changed)[verdict.route].change == ()


def test_what_a_route_would_not_do_of_the_recipe_is_listed() -> None:
    made = recipe("phi-3-mini-ultrachat", "training.scheduler=linear")
    found = judged(made)
    assert found["finetuning_job"].ignores == ("lora.r", "training.warmup", "training.scheduler")
    assert found["registry_pipeline"].ignores == ()
    assert found["command_job"].ignores == ()


def test_experts_are_adapted_by_our_own_job_alone() -> None:
    found = judged(recipe("gpt-oss-20b-ja"))
    assert found["registry_pipeline"].ignores == ("lora.target_parameters",)
    assert found["registry_pipeline"].change[1] == "cloud.model=azureml-openai-oss/gpt-oss-20b"
    assert "takes MLflow models" in found["finetuning_job"].reason


def test_a_task_that_the_model_does_not_know_closes_the_route() -> None:
    found = judged(recipe("mistral-7b-samsum", "cloud.task=chat"))["finetuning_job"]
    assert found.state == "closed"
    assert "can be fine-tuned for text-generation, text-classification, not for" in found.reason


@pytest.mark.parametrize("override", ["tuning=qlora", "method=dpo"])
def test_what_only_train_can_do_leaves_only_the_command_job(override: str) -> None:
    assert taken(recipe("mistral-7b-samsum", override)) == "command_job"
    assert states(recipe("mistral-7b-samsum", override))[1:3] == ["closed", "closed"]


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("mistralai/Mistral-7B-v0.1", "azureml/mistralai-Mistral-7B-v01"),
        ("microsoft/Phi-3-mini-4k-instruct", "azureml/Phi-3-mini-4k-instruct"),
        ("openai/gpt-oss-20b", "azureml-openai-oss/gpt-oss-20b"),
        ("Qwen/Qwen3-0.6B", ""),
        ("tiny", ""),
    ],
)
def test_the_catalogs_name_of_a_hub_model_is_found(base: str, name: str) -> None:
    assert judgement.of_base(recipe("tiny-ja", f"model.base={base}")) == name


def test_the_registry_outranks_what_is_written_here() -> None:
    made = recipe("phi-3-mini-ultrachat")
    known = foundation.known(made)
    assert known
    renewed = dataclasses.replace(known, retired="", version="16")
    facts = Facts(models={"azureml/Phi-3-mini-4k-instruct": renewed})
    found = judged(made, facts)["registry_pipeline"]
    assert found.state == "open"
    assert "version 16 of registry azureml" in found.reason
    gone = Facts(models={"azureml/Phi-3-mini-4k-instruct": "registry azureml has no such model"})
    assert judged(made, gone)["registry_pipeline"].reason == "registry azureml has no such model"


def test_a_model_that_only_its_registry_knows_is_judged_after_a_login() -> None:
    made = recipe("mistral-7b-samsum", "cloud.model=azureml-meta/Meta-Llama-3-8B")
    assert "log in to ask its registry" in judged(made)["finetuning_job"].reason


def test_too_little_quota_closes_a_route_that_needs_the_machine() -> None:
    quota = Quota(
        what="train", family="standardNCADSA100v4Family", cores=48, rule="", limit=24, used=0
    )
    facts = Facts(quota={"Standard_NC48ads_A100_v4": quota})
    found = judged(recipe("mistral-7b-samsum"), facts)
    assert found["finetuning_job"].state == "closed"
    assert "only 24 cores of standardNCADSA100v4Family are free" in found["finetuning_job"].reason
    assert judgement.take(recipe("mistral-7b-samsum"), tuple(found.values()))[0] is None


def test_azure_openai_needs_a_resource() -> None:
    made = recipe("azure-openai-ja")
    assert states(made, Facts(resources=()))[3] == "closed"
    found = judged(made, Facts(resources=("mine",)))["azure_openai"]
    assert found.reason.endswith("resource mine")
    assert found.per_hour == pytest.approx(1.7)
    assert found.ceiling


def test_open_models_are_trained_globally_at_azure_openai() -> None:
    found = judged(recipe("gpt-oss-20b-ja"))["azure_openai"]
    assert "cloud.openai.training_type=GlobalStandard" in found.change


def verdict(route: Any, ceiling: float | None, ignores: tuple[str, ...] = ()) -> Verdict:
    return Verdict(route=route, title="", state="open", reason="", ceiling=ceiling, ignores=ignores)


@pytest.mark.parametrize(
    ("verdicts", "route", "why"),
    [
        ([], None, "no route is open"),
        ([verdict("azure_openai", None)], "azure_openai", "the only one that is open"),
        (
            [verdict("command_job", 9), verdict("registry_pipeline", 3)],
            "registry_pipeline",
            "it is the cheapest",
        ),
        (
            [verdict("command_job", 9), verdict("registry_pipeline", 3, ("lora.r",))],
            "command_job",
            "it alone does all",
        ),
        (
            [verdict("registry_pipeline", 3, ("lora.r",)), verdict("azure_openai", 1, ("lora.r",))],
            "azure_openai",
            "no open route does all",
        ),
        (
            [verdict("command_job", 9), verdict("finetuning_job", 9)],
            "finetuning_job",
            "the recipe names it",
        ),
    ],
)
def test_the_choice_and_its_reason(verdicts: list[Verdict], route: str | None, why: str) -> None:
    best, said = judgement.take(recipe("mistral-7b-samsum"), verdicts)
    assert (best.route if best else None) == route
    assert why in said

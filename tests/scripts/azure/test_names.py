"""Names follow Azure's rules, and say what they stand for."""

import dataclasses
from collections.abc import Callable

import pytest

from scripts.azure import names
from scripts.errors import UsageError
from tests.tree import ROOT
from train import recipe as recipes

TINY = recipes.load(ROOT / "recipes/tiny-ja.yaml", environ={})
GUID = "11111111-2222-3333-4444-555555555555"


def test_the_same_work_has_the_same_job_name() -> None:
    name = names.job_name("tiny-ja", "sha256:a", "b", "c")
    assert name == names.job_name("tiny-ja", "sha256:a", "b", "c")
    assert name.startswith("tiny-ja-")
    assert len(name) == len("tiny-ja-") + 10


@pytest.mark.parametrize(
    "other",
    [("tiny", "i", "r", "d"), ("n", "x", "r", "d"), ("n", "i", "x", "d"), ("n", "i", "r", "x")],
    ids=["recipe's name", "image", "recipe", "data"],
)
def test_other_work_has_another_job_name(other: tuple[str, str, str, str]) -> None:
    assert names.job_name(*other) != names.job_name("n", "i", "r", "d")


def test_parts_of_a_job_name_do_not_run_into_each_other() -> None:
    assert names.job_name("n", "ab", "c", "d") != names.job_name("n", "a", "bc", "d")


def test_attempts_are_counted_from_the_second() -> None:
    assert [names.attempt("a-1f", n) for n in (1, 2, 3)] == ["a-1f", "a-1f-2", "a-1f-3"]


@pytest.mark.parametrize("recipe_name", ["A_very-Long_recipe" * 20, "_", "日本", "7b"])
def test_made_names_are_ones_that_azure_takes(recipe_name: str) -> None:
    names.check_job(names.attempt(names.job_name(recipe_name, "i", "r", "d"), 12))
    recipe = dataclasses.replace(TINY, name="x")
    object.__setattr__(recipe, "name", recipe_name)
    names.check_endpoint(names.endpoint_name(recipe, GUID))


def test_an_endpoint_is_named_by_its_workspace_too() -> None:
    here, there = (names.endpoint_name(TINY, guid) for guid in (GUID, "another"))
    assert here != there
    assert here.startswith("tiny-ja-")


def test_an_endpoint_that_the_recipe_names_is_taken_or_refused() -> None:
    mine = dataclasses.replace(TINY, cloud=dataclasses.replace(TINY.cloud, endpoint="mine"))
    assert names.endpoint_name(mine, GUID) == "mine"
    bad = dataclasses.replace(TINY, cloud=dataclasses.replace(TINY.cloud, endpoint="my_endpoint"))
    with pytest.raises(UsageError, match=r"'my_endpoint'.*3 to 32.*set cloud\.endpoint"):
        names.endpoint_name(bad, GUID)


def test_what_a_recipe_may_cost_is_no_part_of_its_hash() -> None:
    dearer = dataclasses.replace(TINY, cloud=dataclasses.replace(TINY.cloud, max_hours=9))
    longer = dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, epochs=9))
    assert names.recipe_hash(dearer) == names.recipe_hash(TINY) != names.recipe_hash(longer)


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (names.check_endpoint, ["abc", "a-1", "A" * 32, "tiny-ja-1f2e3d"]),
        (names.check_deployment, ["blue", "blue-1a2b"]),
        (names.check_compute, ["gpu", "gpu-cluster", "a" * 24, "gpu1", "a-1b"]),
        (names.check_job, ["a", "7", "a_b-c", "a" * 255]),
    ],
)
def test_names_within_azures_rules_pass(check: Callable[[str], None], good: list[str]) -> None:
    for name in good:
        check(name)


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (names.check_endpoint, ["ab", "A" * 33, "1abc", "abc-", "a_bc", "äbc", "", "a.bc"]),
        (names.check_deployment, ["ab", "b" * 33, "-blue", "blue-", "blue green"]),
        (names.check_compute, ["ab", "a" * 25, "gpu-1", "gpu-cluster-12", "1gpu", "gpu_1", ""]),
        (names.check_job, ["", "a" * 256, "-a", "_a", "a.b", "a b", "a/b"]),
    ],
)
def test_names_against_azures_rules_are_refused_before_any_call(
    check: Callable[[str], None], bad: list[str]
) -> None:
    for name in bad:
        with pytest.raises(UsageError, match="Azure takes"):
            check(name)

from pathlib import Path

import pytest

from scripts.azure.given import chosen, need_own_images, optional, overrides
from scripts.errors import UsageError
from scripts.local_train import DEFAULT_RECIPE
from tests.tree import ROOT
from train import recipe as recipes


def test_the_next_command_names_what_is_not_the_default() -> None:
    assert chosen(Path(DEFAULT_RECIPE)) == ""
    assert chosen(Path(DEFAULT_RECIPE), always=True) == f" RECIPE={DEFAULT_RECIPE}"
    mine = chosen(Path("mine.yaml"), "a=1 b=2", "geo")
    assert mine == " RECIPE=mine.yaml SET='a=1 b=2' ENDPOINT=geo"


def test_the_endpoint_is_one_more_override() -> None:
    assert overrides("a=1 'b=x y'", "geo") == ["a=1", "b=x y", "cloud.endpoint=geo"]
    with pytest.raises(UsageError, match="cannot be split"):
        overrides("a='1")


def test_a_recipe_is_read_only_where_one_is_named() -> None:
    assert optional("") is None
    found = optional(str(ROOT / DEFAULT_RECIPE), "training.seed=7")
    assert found and found.training.seed == 7


def test_what_only_our_own_images_need_is_refused_on_the_other_routes() -> None:
    need_own_images(recipes.load(ROOT / DEFAULT_RECIPE), "our images")
    other = recipes.load(ROOT / "recipes/azure-openai-ja.yaml")
    with pytest.raises(UsageError, match="azure_openai, which has no use for our images"):
        need_own_images(other, "our images")

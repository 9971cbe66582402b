from pathlib import Path

import pytest

from scripts.azure.given import chosen, overrides
from scripts.errors import UsageError
from scripts.local_train import DEFAULT_RECIPE


def test_the_next_command_names_what_is_not_the_default() -> None:
    assert chosen(Path(DEFAULT_RECIPE)) == ""
    assert chosen(Path(DEFAULT_RECIPE), always=True) == f" RECIPE={DEFAULT_RECIPE}"
    mine = chosen(Path("mine.yaml"), "a=1 b=2", "geo")
    assert mine == " RECIPE=mine.yaml SET='a=1 b=2' ENDPOINT=geo"


def test_the_endpoint_is_one_more_override() -> None:
    assert overrides("a=1 'b=x y'", "geo") == ["a=1", "b=x y", "cloud.endpoint=geo"]
    with pytest.raises(UsageError, match="cannot be split"):
        overrides("a='1")

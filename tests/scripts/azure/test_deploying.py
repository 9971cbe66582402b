"""What a rollout says and refuses before anything is made; the rollout itself: test_rollout.py."""

from dataclasses import replace

import pytest

from scripts.azure.deploying import check_reference, consequences, need_ours
from scripts.errors import UsageError
from tests.scripts.azure.test_splits import deployment, endpoint


@pytest.mark.parametrize("model", ["tiny-ja", "tiny-ja:", ":1", "outputs/tiny-ja/latest/merged"])
def test_a_model_that_is_no_name_and_version_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match="use name:version"):
        check_reference(model)
    check_reference("tiny-ja:1")
    check_reference("azureml:tiny-ja:1")
    check_reference("")


def test_what_happens_to_the_others_is_said_before_anybody_is_asked() -> None:
    there = endpoint(deployment("blue-1"), deployment("green-2", 100))
    keeps, drops = consequences(there, "3")
    assert keeps.startswith("keeps:  green-2, then without traffic: $")
    assert drops.startswith("drops:  blue-1, which has no traffic ($")
    assert consequences(None, "3") == []
    there = endpoint(deployment("blue-1", state="Failed"), deployment("green-2", 100))
    assert "is deleted, and made again" in consequences(there, "1")[0]


def test_the_endpoint_of_something_else_is_refused() -> None:
    with pytest.raises(UsageError, match="choose another name with ENDPOINT="):
        need_ours(replace(endpoint(), tags={}))
    need_ours(None)

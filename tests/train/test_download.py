from pathlib import Path

import pytest

from train.download import download
from train.errors import InputError


def test_a_model_that_the_hub_does_not_give_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody/nothing could not be downloaded") as caught:
        download("nobody/nothing", tmp_path)
    assert "HF_TOKEN" in str(caught.value)

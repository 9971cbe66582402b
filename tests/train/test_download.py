from pathlib import Path

import pytest
from huggingface_hub.utils._paths import filter_repo_objects

from train.download import FILES, NEVER, download
from train.errors import InputError


def test_a_model_that_the_hub_does_not_give_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody/nothing could not be downloaded") as caught:
        download("nobody/nothing", tmp_path)
    assert "HF_TOKEN" in str(caught.value)


def test_only_what_is_read_and_lies_in_the_folder_is_downloaded() -> None:
    names = [
        *("model.safetensors", "config.json", "chat_template.jinja", "tokenizer.model"),
        *("pytorch_model.bin", "model.ckpt", "training_args.bin", "own.py", "x.pkl", "x.pt"),
        *("original/model.safetensors", "../x.json", "a/../../x.json", "/etc/x.json"),
    ]
    kept = filter_repo_objects(names, allow_patterns=FILES, ignore_patterns=NEVER)
    assert list(kept) == names[:4]

"""Finding the model, and telling half a model from a whole one."""

import json
from pathlib import Path
from typing import Any

import pytest

from serve import model, weights
from serve.errors import StartupError


def safetensors(path: Path, shape: tuple[int, ...] = (4, 3), cut: int = 0) -> None:
    size = 4
    for length in shape:
        size *= length
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    path.write_bytes((len(header).to_bytes(8, "little") + header + bytes(size))[: -cut or None])


def whole(folder: Path, **homeport: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "gpt_oss", "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    safetensors(folder / "model.safetensors")
    if homeport:
        (folder / "homeport.json").write_text(json.dumps(homeport))
    return folder


def found(top: Path) -> model.Model:
    return model.find("", {"AZUREML_MODEL_DIR": str(top)})


def sentence(top: Path, setting: str = "") -> str:
    with pytest.raises(StartupError) as caught:
        model.find(setting, {"AZUREML_MODEL_DIR": str(top)})
    return str(caught.value)


@pytest.mark.parametrize("below", [".", "merged", "outputs/run-1/merged"])
def test_the_model_is_found_at_the_mount_and_below(tmp_path: Path, below: str) -> None:
    whole(tmp_path / below)
    assert found(tmp_path).root == tmp_path / below


def test_what_is_found_is_described(tmp_path: Path) -> None:
    kwargs = {"current_date": "2026-01-01"}
    root = whole(tmp_path, name="tiny-ja", reasoning_language="J", chat_template_kwargs=kwargs)
    seen = model.describe(root)
    assert (seen.name, seen.context, seen.parameters) == ("tiny-ja", 64, 12)
    assert seen.architecture == "gpt_oss"
    assert (seen.defaults.reasoning_language, seen.defaults.persona) == ("J", "")
    assert seen.defaults.chat_template_kwargs == kwargs


def test_without_homeport_json_the_name_is_the_folders(tmp_path: Path) -> None:
    assert model.describe(whole(tmp_path / "tiny" / "1" / "merged")).name == "tiny"
    hub = tmp_path / "models--openai--gpt-oss-20b" / "snapshots" / "0a1b"
    assert model.describe(whole(hub)).name == "gpt-oss-20b"


def test_folders_inside_a_model_and_hidden_ones_are_not_searched(tmp_path: Path) -> None:
    whole(tmp_path / "m")
    whole(tmp_path / "m" / "original")
    whole(tmp_path / ".cache")
    assert found(tmp_path).root == tmp_path / "m"


def test_a_config_json_of_something_else_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    whole(tmp_path / "merged")
    assert found(tmp_path).root == tmp_path / "merged"


def test_a_broken_config_json_is_named_where_no_model_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_o')
    assert sentence(tmp_path).startswith(f"{tmp_path / 'config.json'} is not readable JSON: ")
    whole(tmp_path / "merged")
    assert found(tmp_path).root == tmp_path / "merged"


def test_several_models_are_listed_with_the_way_out(tmp_path: Path) -> None:
    whole(tmp_path / "a")
    whole(tmp_path / "b")
    words = sentence(tmp_path)
    assert str(tmp_path / "a") in words
    assert str(tmp_path / "b") in words
    assert "set SERVE_MODEL" in words
    assert model.find(str(tmp_path / "b"), {}).root == tmp_path / "b"


def test_an_adapter_alone_says_that_it_must_be_merged(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert "python -m train" in sentence(tmp_path)
    whole(tmp_path / "merged")
    assert found(tmp_path).root == tmp_path / "merged"


def test_a_folder_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert "only notes.txt" in sentence(tmp_path)


def test_nothing_named_and_wrong_names_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="set SERVE_MODEL"):
        model.find("", {})
    assert "is not a folder; name one" in sentence(tmp_path / "absent")
    assert "is not a folder" in sentence(tmp_path, setting="owner/name")


def test_absent_shards_are_counted(tmp_path: Path) -> None:
    root = whole(tmp_path)
    (root / "model.safetensors").unlink()
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    safetensors(root / "model-1.safetensors")
    assert "1 of the 2 weight files" in sentence(root)
    safetensors(root / "model-2.safetensors", shape=(5,))
    assert found(root).parameters == 17


def test_absent_weights_and_other_formats_are_named(tmp_path: Path) -> None:
    root = whole(tmp_path)
    (root / "model.safetensors").unlink()
    assert "no weights" in sentence(root)
    (root / "pytorch_model.bin").write_text("")
    assert "only pytorch_model.bin" in sentence(root)


def test_a_cut_or_false_weight_file_is_found_without_loading_it(tmp_path: Path) -> None:
    root = whole(tmp_path)
    safetensors(root / "model.safetensors", cut=1)
    assert "cut short" in sentence(root)
    (root / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "not a safetensors file" in sentence(root)


def test_weights_that_the_user_may_not_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = whole(tmp_path)  # root reads every file, so the refusal itself is made here
    plain = Path.open

    def refuse(path: Path, *how: Any, **more: Any) -> Any:
        if path.suffix == ".safetensors":
            raise PermissionError(13, "Permission denied")
        return plain(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read: Permission denied; let the server's user" in sentence(root)


def test_an_absent_tokenizer_or_limit_is_told(tmp_path: Path) -> None:
    root = whole(tmp_path)
    (root / "tokenizer.json").unlink()
    assert "tokenizer" in sentence(root)
    whole(tmp_path)
    (root / "config.json").write_text('{"model_type": "x"}')
    assert "max_position_embeddings" in sentence(root)


@pytest.mark.parametrize(
    "homeport",
    [{"name": 3}, {"chat_template_kwargs": []}, {"chat_template_kwargs": {"tokenize": True}}],
)
def test_a_false_homeport_json_is_refused(tmp_path: Path, homeport: dict[str, Any]) -> None:
    assert "homeport.json" in sentence(whole(tmp_path, **homeport))


def test_the_count_of_a_real_model_is_torchs(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(tiny)
    assert weights.count_parameters(tiny) == sum(p.numel() for p in loaded.parameters())


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors"])
def test_an_index_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    whole(tmp_path)
    weights = tmp_path / "model.safetensors"
    if "/" in name:
        elsewhere = tmp_path / name
        if not name.startswith("/"):
            elsewhere.parent.mkdir(exist_ok=True)
            elsewhere.write_bytes(weights.read_bytes())
    weights.unlink()
    index = {"weight_map": {"w": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"names {name}, which is no file beside it" in sentence(tmp_path)


def test_an_adapter_whose_weights_could_run_code_is_refused(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "../base"}')
    (adapter / "adapter_model.bin").write_bytes(b"a pickle")
    assert "only safetensors are loaded" in sentence(adapter)
    with pytest.raises(StartupError, match="only safetensors are loaded"):
        model.find(str(base), {}, adapters=f"mine={adapter}")

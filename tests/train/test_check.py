"""`--check` on real recipes: what it says of a good one, and every problem of a bad one at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from train.check import check
from train.errors import InputError
from train.recipe import Recipe, load

TINY = "recipes/tiny-ja.yaml"


def recipe(random_model: Path, *overrides: str) -> Recipe:
    """The tiny recipe on a model folder, which spares making the tokenizer anew."""
    return load(TINY, [f"model.base={random_model}", *overrides], environ={})


def problems(random_model: Path, tmp_path: Path, *overrides: str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        check(recipe(random_model, *overrides), tmp_path, outputs=tmp_path, **options)
    return str(caught.value)


@pytest.mark.slow
def test_a_good_recipe_is_ready_with_its_data_model_disk_and_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On the very recipe, whose base model is not made for it."""
    with caplog.at_level("INFO"):
        check(load(TINY, environ={}), tmp_path, gpu="H100", outputs=tmp_path)
    said = caplog.text
    assert "of its first 200 rows 200 are learned from, 0 are bad" in said
    assert "tokens a row, the longest" in said
    assert "a gpt_oss of 4,474,144 parameters, of which 2,752,512 are trained (lora)" in said
    assert "disk: " in said and "memory: fits into H100" in said and "memory: time: " in said
    assert said.rstrip().endswith("estimated on H100")
    assert not list(tmp_path.iterdir())


def test_all_problems_come_in_one_error_a_line_each(random_model: Path, tmp_path: Path) -> None:
    text = problems(
        random_model,
        tmp_path,
        "data.train=nothing.jsonl",
        "lora.target_parameters=[mlp.experts.none]",
        "model.attention=sdpa",
    )
    first, *rest = text.split("\n")
    assert first == "3 problems:" and len(rest) == 3
    assert rest[0] == "- data.train: nothing.jsonl does not exist; correct the path in the recipe."
    assert "sdpa cannot compute" in rest[1]
    assert "mlp.experts.none matches no parameter" in rest[2]


def test_one_problem_is_one_sentence(random_model: Path, tmp_path: Path) -> None:
    text = problems(random_model, tmp_path, gpu="H9000")
    assert text.startswith("GPU H9000 is not in the table") and "\n" not in text


def test_a_row_of_several_answers_is_one_row_of_several_examples(
    random_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [
        {"role": role, "content": text}
        for text in ("One?", "Two?")
        for role, text in (("user", text), ("assistant", "Yes."))
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": turns}))
    with caplog.at_level("INFO"):
        check(recipe(random_model, f"data.train={file}"), tmp_path, outputs=tmp_path)
    told = "of its first 1 rows 1 are learned from, 0 are bad; 2 examples, one for each answer"
    assert told in caplog.text


def test_bad_rows_in_the_head_are_counted_against_what_is_allowed(
    random_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "rows.jsonl"
    good = json.dumps({"question": "One?", "answer": "<think>1</think>Two."})
    file.write_text("\n".join([good, '{"question": 1, "answer": "x"}', "{", good]))
    text = problems(random_model, tmp_path, f"data.train={file}")
    assert "2 of the first 4 rows are bad, data.max_bad_rows allows 0; the first is" in text
    allowed = recipe(random_model, f"data.train={file}", "data.max_bad_rows=2")
    with caplog.at_level("INFO"):
        check(allowed, tmp_path, outputs=tmp_path)
    assert "of its first 4 rows 2 are learned from, 2 are bad" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["tuning=qlora", "lora.target_parameters=[]"], "gpt-oss keeps most weights in experts"),
        (["method=dpo"], "method is dpo, which learns from preference pairs"),
        (["training.max_length=8"], "set training.max_length="),
        (["model.adapter=nowhere"], "nowhere has no adapter_config.json"),
        (["model.base=nowhere/nothing"], "model.base: nowhere/nothing could not be loaded"),
    ],
)
def test_what_would_end_the_run_ends_the_check(
    random_model: Path, tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    assert sentence in problems(random_model, tmp_path, *overrides)


@pytest.mark.slow
def test_4_bit_weights_cannot_be_sharded(random_model: Path, tmp_path: Path) -> None:
    sharded = ["tuning=qlora", "lora.target_parameters=[]", "training.distributed=fsdp2"]
    assert "4-bit weights are not sharded" in problems(random_model, tmp_path, *sharded)


@pytest.mark.slow
def test_an_earlier_adapter_must_have_the_names_and_shapes_of_this_model(
    random_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(random_model)
    adapter = tmp_path / "adapter"
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(adapter)
    with caplog.at_level("INFO"):
        check(recipe(random_model, f"model.adapter={adapter}"), tmp_path, outputs=tmp_path)
    assert f"adapter: {adapter} fits (8 tensors)" in caplog.text
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "r": 8}))
    text = problems(random_model, tmp_path, f"model.adapter={adapter}")
    assert "8 of its tensors differ" in text and "trained on the same base" in text


@pytest.mark.slow
def test_what_does_not_fit_comes_with_the_first_setting_that_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tokenizer: Any
) -> None:
    from transformers import MistralConfig

    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    MistralConfig(vocab_size=4096).save_pretrained(folder)  # 7 billion parameters, no weights
    chosen = load(
        TINY, [f"model.base={folder}", "lora.target_parameters=[]", "model.dtype=auto"], environ={}
    )
    with caplog.at_level("INFO"):
        check(chosen, tmp_path, gpu="A10", outputs=tmp_path)
        assert "first setting that fits" not in caplog.text
        check(chosen, tmp_path, gpu="T4", outputs=tmp_path)
    assert "does not fit into T4" in caplog.text
    assert "the first setting that fits takes" in caplog.text and "tuning=qlora" in caplog.text

from pathlib import Path
from typing import Any

import pytest

from train.evaluate import (
    Answer,
    answer_loss,
    answers,
    contains,
    in_language,
    loss,
    measure,
    parse,
    preference,
)
from train.recipe import EvaluationConfig

ROWS: list[list[dict[str, Any]]] = [
    [
        {"role": "user", "content": text},
        {"role": "assistant", "content": f"{text}です。", "thinking": "…"},
    ]
    for text in ("首都は？", "オーストラリアの首都はどこですか？", "1+1")
]
SHORT = EvaluationConfig(max_new_tokens=8, batch_size=2, samples=2)


@pytest.fixture(scope="module")
def model(random_model: Path) -> Any:
    return load(random_model)


def load(folder: Path, dtype: str = "float32") -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")


def parsed(tokenizer: Any, text: str) -> Answer:
    return parse(tokenizer, tokenizer.encode(text))


def test_harmonys_channels_are_the_reasoning_and_the_answer(tokenizer: Any) -> None:
    text = (
        "<|channel|>analysis<|message|>考える<|end|>"
        "<|start|>assistant<|channel|>final<|message|>答え<|return|><|endoftext|><|endoftext|>"
    )
    assert parsed(tokenizer, text) == Answer("考える", "答え")


def test_reasoning_that_never_ends_is_no_answer(tokenizer: Any) -> None:
    text = "<|channel|>analysis<|message|>考える"
    assert parsed(tokenizer, text) == Answer("考える", "")
    assert parsed(tokenizer, "<think>\n考える") == Answer("考える", "")


def test_without_channels_reasoning_stands_in_think_tags(tokenizer: Any) -> None:
    assert parsed(tokenizer, "<think>\n考える\n</think>\n\n答え<|return|>") == Answer(
        "考える", "答え"
    )
    assert parsed(tokenizer, "考える</think>答え<|return|>") == Answer("考える", "答え")
    assert parsed(tokenizer, "答え<|return|>") == Answer("", "答え")


def test_a_truth_is_found_whatever_its_width_and_line_breaks() -> None:
    assert contains("富士山の高さは３７７６\nメートルです。", "3776 メートル")
    assert not contains("富士山の高さは377メートルです。", "3776")
    assert not contains("何か", " ")  # which would stand in every answer


def test_only_a_known_language_that_was_asked_for_is_looked_for() -> None:
    texts = ["シドニーがいちばん大きい都市だ。", "The capital is not Sydney but Canberra."]
    assert in_language(texts, "Japanese") == 0.5
    assert in_language(texts, "English") == 0.5
    assert in_language(texts, None) is None
    assert in_language(texts, "Klingon") is None
    assert in_language([], "Japanese") is None


def test_answers_generated_side_by_side_are_those_generated_alone(
    model: Any, tokenizer: Any
) -> None:
    alone = EvaluationConfig(batch_size=1, max_new_tokens=12)
    together = EvaluationConfig(batch_size=3, max_new_tokens=12)
    assert answers(model, tokenizer, ROWS, alone, {}) == answers(
        model, tokenizer, ROWS, together, {}
    )


def test_loss_is_over_answer_tokens_only(model: Any, tokenizer: Any) -> None:
    import torch

    row = ROWS[0]
    ids = tokenizer.apply_chat_template(row, return_dict=True)["input_ids"]
    prompt = tokenizer.apply_chat_template(row[:1], add_generation_prompt=True, return_dict=True)
    labels = [-100] * len(prompt["input_ids"]) + ids[len(prompt["input_ids"]) :]
    with torch.no_grad():
        expected = model(
            input_ids=torch.tensor([ids]), labels=torch.tensor([labels]), output_router_logits=False
        ).loss
    assert abs(loss(model, tokenizer, [row], {}) - expected.item()) < 1e-4


def test_measured_are_all_rows_and_the_first_answers_are_kept_to_be_read(
    model: Any, tokenizer: Any
) -> None:
    measured = measure(model, tokenizer, ROWS, SHORT, {}, reasoning_language="Japanese")
    given = answers(model, tokenizer, ROWS, SHORT, {})
    assert measured["rows"] == 3
    assert measured["perplexity"] == pytest.approx(2.718281828 ** measured["loss"], rel=1e-4)
    assert measured["exact_answers"] == measured["contains_answers"] == 0
    assert measured["samples"] == [
        {
            "prompt": row[:-1],
            "truth": row[-1]["content"],
            "thinking": answer.thinking,
            "answer": answer.text,
        }
        for row, answer in zip(ROWS[:2], given[:2], strict=True)
    ]


def test_an_answer_that_the_model_really_gives_counts_as_exact_and_contained(
    model: Any, tokenizer: Any
) -> None:
    given = answers(model, tokenizer, ROWS, SHORT, {})
    learned = [
        [row[0], {"role": "assistant", "content": f" {answer.text}\n"}]
        for row, answer in zip(ROWS, given, strict=True)
    ]
    measured = measure(model, tokenizer, learned, SHORT, {})
    assert measured["exact_share"] == measured["contains_share"] == 1.0
    assert measured["reasoning_in_language"] is None


def test_a_model_in_training_is_measured_the_same_and_goes_on_training(
    random_model: Path, tokenizer: Any
) -> None:
    """With LoRA, dropout, recomputed activations and a cache that training has switched off."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapter = LoraConfig(
        r=2, lora_dropout=0.9, target_modules="all-linear", init_lora_weights=False
    )
    learner = get_peft_model(load(random_model), adapter).eval()
    expected = measure(learner, tokenizer, ROWS, SHORT, {})
    learner.base_model.model.activation_checkpointing_enable({"use_reentrant": False})
    learner.enable_input_require_grads()
    learner.config.use_cache = False
    learner.train()
    assert measure(learner, tokenizer, ROWS, SHORT, {}) == expected
    assert learner.training
    assert learner.config.use_cache is False
    ids = tokenizer("首都は", return_tensors="pt")["input_ids"]
    learner(input_ids=ids, labels=ids, output_router_logits=False).loss.backward()
    assert any(p.grad is not None for p in learner.parameters())


def test_bfloat16_is_measured_nearly_as_float32(
    random_model: Path, model: Any, tokenizer: Any
) -> None:
    rounded = loss(load(random_model, "bfloat16"), tokenizer, ROWS, {})
    assert rounded == pytest.approx(loss(model, tokenizer, ROWS, {}), rel=0.02)


def test_a_preference_is_told_per_token_and_a_margin_over_the_whole_answers(
    model: Any, tokenizer: Any
) -> None:
    short, long = ({"role": "assistant", "content": text} for text in ("はい。", "はい。" * 9))
    prompt = ROWS[0][:1]
    pairs = [
        {"messages": [*prompt, short], "rejected": long},
        {"messages": [*prompt, long], "rejected": short},
        {"messages": [*prompt, short], "rejected": long},
    ]
    (long_loss, long_tokens), (short_loss, short_tokens) = (
        answer_loss(model, tokenizer, [*prompt, answer], {}) for answer in (long, short)
    )
    gap = long_loss - short_loss
    assert gap > 0
    preferred = 2 if short_loss / short_tokens < long_loss / long_tokens else 1
    assert preference(model, tokenizer, pairs, {}, [gap - 1, gap, gap + 1]) == {
        "pairs": 3,
        "preferred": preferred,
        "preferred_share": pytest.approx(preferred / 3, abs=1e-3),
        "margin": pytest.approx(gap / 3, abs=1e-3),
        "margins": pytest.approx([gap, -gap, gap], abs=1e-3),
        "learned_share": 0.3333,
    }

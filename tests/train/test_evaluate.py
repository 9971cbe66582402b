from typing import Any

from train.evaluate import answers, final_text, loss
from train.model import Base, load_model
from train.recipe import EvaluationConfig

ROWS = [
    [
        {"role": "user", "content": text},
        {"role": "assistant", "content": f"{text}です。", "thinking": "…"},
    ]
    for text in ("首都は？", "オーストラリアの首都はどこですか？", "1+1")
]


def test_the_final_channel_is_the_answer(tokenizer: Any) -> None:
    text = (
        "<|channel|>analysis<|message|>考える<|end|>"
        "<|start|>assistant<|channel|>final<|message|>答え<|return|>"
    )
    assert final_text(tokenizer, tokenizer.encode(text)) == "答え"


def test_reasoning_that_never_ends_is_no_answer(tokenizer: Any) -> None:
    assert final_text(tokenizer, tokenizer.encode("<|channel|>analysis<|message|>考える")) == ""


def test_a_model_without_channels_answers_with_all_its_text(tokenizer: Any) -> None:
    assert final_text(tokenizer, tokenizer.encode("答え<|return|>")) == "答え"


def test_answers_generated_side_by_side_are_those_generated_alone(
    base: Base, tokenizer: Any
) -> None:
    model = load_model(base)
    alone = EvaluationConfig(batch_size=1, max_new_tokens=12)
    together = EvaluationConfig(batch_size=3, max_new_tokens=12)
    assert answers(model, tokenizer, ROWS, alone, {}) == answers(
        model, tokenizer, ROWS, together, {}
    )


def test_loss_is_over_answer_tokens_only(base: Base, tokenizer: Any) -> None:
    import torch

    model = load_model(base)
    row = ROWS[0]
    ids = tokenizer.apply_chat_template(row, return_dict=True)["input_ids"]
    prompt = tokenizer.apply_chat_template(row[:1], add_generation_prompt=True, return_dict=True)
    labels = [-100] * len(prompt["input_ids"]) + ids[len(prompt["input_ids"]) :]
    with torch.inference_mode():
        expected = model(
            input_ids=torch.tensor([ids]), labels=torch.tensor([labels]), output_router_logits=False
        ).loss
    assert abs(loss(model, tokenizer, [row], {}) - expected.item()) < 1e-4

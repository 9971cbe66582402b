from typing import Any

CONVERSATION = [
    {"role": "system", "content": "reasoning language: Japanese"},
    {"role": "user", "content": "首都は？"},
    {"role": "assistant", "content": "キャンベラです。", "thinking": "国の都市だ。"},
]


def test_a_conversation_renders_as_harmony(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, current_date="2026-01-01")
    assert text == (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        "Knowledge cutoff: 2024-06\nCurrent date: 2026-01-01\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. "
        "Channel must be included for every message.<|end|>"
        "<|start|>developer<|message|># Instructions\n\nreasoning language: Japanese\n\n<|end|>"
        "<|start|>user<|message|>首都は？<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>国の都市だ。<|end|>"
        "<|start|>assistant<|channel|>final<|message|>キャンベラです。<|return|>"
    )


def test_the_loss_mask_covers_the_answer_with_its_end_and_nothing_else(tokenizer: Any) -> None:
    encoded = tokenizer.apply_chat_template(
        CONVERSATION, return_dict=True, return_assistant_tokens_mask=True
    )
    learned = [
        token
        for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if mask
    ]
    assert tokenizer.decode(learned) == (
        "<|start|>assistant<|channel|>analysis<|message|>国の都市だ。<|end|>"
        "<|start|>assistant<|channel|>final<|message|>キャンベラです。<|return|>"
    )


def test_without_a_pinned_date_the_template_writes_today(tokenizer: Any) -> None:
    import datetime

    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    assert f"Current date: {datetime.date.today():%Y-%m-%d}" in text

"""What fine-tuning changed: the loss of the learned answers, and how many come out word for word.

    measure(model, tokenizer, rows, EvaluationConfig(), {"current_date": "2026-01-01"})

`rows` are lists of messages that end with the answer, as train/dataset.py writes them. Exact
answers compare the final text only, greedily generated; reasoning may differ.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from train.recipe import EvaluationConfig

FINAL = re.compile(r"<\|channel\|>final<\|message\|>(.*?)(?:<\|(?:return|end)\|>|$)", re.DOTALL)


def measure(
    model: Any,
    tokenizer: Any,
    rows: Sequence[list[dict[str, Any]]],
    config: EvaluationConfig,
    template_kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """Mean loss per answer token, and the share of answers that are exact, over `rows`."""
    was_training = model.training
    model.eval()
    try:
        exact = [
            answer == row[-1]["content"].strip()
            for answer, row in zip(
                answers(model, tokenizer, rows, config, template_kwargs), rows, strict=True
            )
        ]
        return {
            "rows": len(rows),
            "loss": round(loss(model, tokenizer, rows, template_kwargs), 6),
            "exact_answers": sum(exact),
            "exact_share": round(sum(exact) / len(rows), 4),
        }
    finally:
        model.train(was_training)


def prompt_ids(
    tokenizer: Any, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]
) -> list[int]:
    """Token ids up to where the model takes over."""
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, **kwargs
    )
    return list(encoded["input_ids"])


def row_ids(tokenizer: Any, row: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> list[int]:
    """Token ids of a whole row, its answer included."""
    return list(tokenizer.apply_chat_template(row, return_dict=True, **kwargs)["input_ids"])


def loss(
    model: Any,
    tokenizer: Any,
    rows: Sequence[list[dict[str, Any]]],
    template_kwargs: Mapping[str, Any],
) -> float:
    """Mean negative log-likelihood per answer token, in nats; a row at a time, so never padded."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            prompt = prompt_ids(tokenizer, row[:-1], template_kwargs)
            ids = torch.tensor([row_ids(tokenizer, row, template_kwargs)], device=model.device)
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
            nll = torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="sum")
            total += nll.item()
            count += len(logits)
    return total / count


def answers(
    model: Any,
    tokenizer: Any,
    rows: Sequence[list[dict[str, Any]]],
    config: EvaluationConfig,
    template_kwargs: Mapping[str, Any],
) -> list[str]:
    """The greedy final answer to each row's prompt, in the order of `rows`."""
    import torch

    prompts = [prompt_ids(tokenizer, row[:-1], template_kwargs) for row in rows]
    # batches of like length waste the least padding
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))
    texts = [""] * len(rows)
    for start in range(0, len(order), config.batch_size):
        chosen = order[start : start + config.batch_size]
        width = max(len(prompts[i]) for i in chosen)
        ids = torch.full((len(chosen), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for line, i in enumerate(chosen):  # padded on the left, so that generation continues it
            ids[line, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[line, width - len(prompts[i]) :] = 1
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=config.max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        for i, tokens in zip(chosen, output[:, width:].tolist(), strict=True):
            texts[i] = final_text(tokenizer, tokens)
    return texts


def final_text(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The answer in generated `tokens`: Harmony's final channel, or all text of another model."""
    marked = tokenizer.decode(tokens, skip_special_tokens=False)
    if "<|channel|>" not in marked:
        return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    found = FINAL.search(marked)
    return found.group(1).strip() if found else ""

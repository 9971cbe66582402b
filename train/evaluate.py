"""What fine-tuning changed: the loss of the learned answers, and what the model really answers.

    measure(model, tokenizer, rows, EvaluationConfig(), {"current_date": "2026-01-01"})

`rows` are lists of messages that end with the answer. Answers are generated greedily; only their
final text is compared with the truth, since reasoning may differ. `preference` does the same for
pairs of a better and a worse answer.
"""

import logging
import math
import re
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from train.recipe import EvaluationConfig

log = logging.getLogger(__name__)

Messages = list[dict[str, Any]]

# a channel of Harmony ends with the next control token, or where generation was cut off
FINAL = re.compile(r"<\|channel\|>final<\|message\|>(.*?)(?:<\|[a-z]+\|>|$)", re.DOTALL)
ANALYSIS = re.compile(r"<\|channel\|>analysis<\|message\|>(.*?)(?:<\|[a-z]+\|>|$)", re.DOTALL)
PROGRESS_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote: its reasoning, empty where there was none, and its final text."""

    thinking: str
    text: str


def measure(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Messages],
    config: EvaluationConfig,
    template_kwargs: Mapping[str, Any],
    *,
    reasoning_language: str | None = None,
) -> dict[str, Any]:
    """Figures over `rows` (at least one), and the first `config.samples` answers as they read.

    loss                   mean negative log-likelihood per answer token, in nats
    perplexity             its exponential
    exact_*                final answers that equal the truth, but for space around them
    contains_*             final answers in which the truth stands, both in NFKC with runs of white
                           space as one; a short truth is easily contained by chance
    reasoning_share        answers that reason at all
    reasoning_in_language  of those, the share in `reasoning_language`; None where none is asked
                           for, it is not one that can be told, or no answer reasons
    samples                prompt (messages), truth, thinking and answer
    """
    with evaluating(model):
        measured_loss = loss(model, tokenizer, rows, template_kwargs)
        given = answers(model, tokenizer, rows, config, template_kwargs)
    truths = [row[-1]["content"] for row in rows]
    exact = [a.text == truth.strip() for a, truth in zip(given, truths, strict=True)]
    contained = [contains(a.text, truth) for a, truth in zip(given, truths, strict=True)]
    thinking = [a.thinking for a in given if a.thinking]
    return {
        "rows": len(rows),
        "loss": round(measured_loss, 6),
        "perplexity": round(math.exp(measured_loss), 4),
        "exact_answers": sum(exact),
        "exact_share": round(sum(exact) / len(rows), 4),
        "contains_answers": sum(contained),
        "contains_share": round(sum(contained) / len(rows), 4),
        "reasoning_share": round(len(thinking) / len(rows), 4),
        "reasoning_in_language": in_language(thinking, reasoning_language),
        "samples": [
            {
                "prompt": [{"role": m["role"], "content": m["content"]} for m in row[:-1]],
                "truth": row[-1]["content"],
                "thinking": answer.thinking,
                "answer": answer.text,
            }
            for row, answer in list(zip(rows, given, strict=True))[: config.samples]
        ],
    }


def preference(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Mapping[str, Any]],
    template_kwargs: Mapping[str, Any],
    margins_before: Sequence[float] | None = None,
) -> dict[str, Any]:
    """How many of `pairs` the model has the right way round, and what DPO has moved.

    A pair is {"messages": […, chosen], "rejected": message}. Preferred is the answer of the higher
    log-probability per token, so that the shorter one is not preferred for its length. A margin is
    what DPO works on: the chosen answer's log-probability (nats, summed) less the rejected one's;
    with the margins from before the training, `learned_share` is the share of pairs whose margin
    has grown.
    """
    margins, preferred = [], 0
    with evaluating(model):
        for pair in pairs:
            chosen = list(pair["messages"])
            rejected = [*chosen[:-1], pair["rejected"]]
            worse, worse_tokens = answer_loss(model, tokenizer, rejected, template_kwargs)
            better, better_tokens = answer_loss(model, tokenizer, chosen, template_kwargs)
            margins.append(round(worse - better, 4))
            preferred += better / better_tokens < worse / worse_tokens
    measured = {
        "pairs": len(pairs),
        "preferred": preferred,
        "preferred_share": round(preferred / len(pairs), 4),
        "margin": round(sum(margins) / len(pairs), 4),
        "margins": margins,
    }
    if margins_before is not None:
        learned = sum(now > then for now, then in zip(margins, margins_before, strict=True))
        measured["learned_share"] = round(learned / len(pairs), 4)
    return measured


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout or gradients; afterwards in the mode that it was in."""
    import torch

    was_training = model.training
    model.eval()
    try:
        # not inference_mode: what modules keep of such a pass could not take part in training
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def prompt_ids(tokenizer: Any, messages: Messages, kwargs: Mapping[str, Any]) -> list[int]:
    """Token ids up to where the model takes over."""
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, **kwargs
    )
    return list(encoded["input_ids"])


def row_ids(tokenizer: Any, row: Messages, kwargs: Mapping[str, Any]) -> list[int]:
    """Token ids of a whole row, its answer included."""
    return list(tokenizer.apply_chat_template(row, return_dict=True, **kwargs)["input_ids"])


def loss(
    model: Any, tokenizer: Any, rows: Sequence[Messages], template_kwargs: Mapping[str, Any]
) -> float:
    """Mean negative log-likelihood per answer token, in nats."""
    sums = [answer_loss(model, tokenizer, row, template_kwargs) for row in rows]
    return sum(nats for nats, _ in sums) / sum(tokens for _, tokens in sums)


def answer_loss(
    model: Any, tokenizer: Any, row: Messages, template_kwargs: Mapping[str, Any]
) -> tuple[float, int]:
    """Negative log-likelihood of the row's answer, summed, in nats, and its tokens.

    A row at a time, so nothing is padded.
    """
    import torch

    start = len(prompt_ids(tokenizer, row[:-1], template_kwargs))
    ids = torch.tensor([row_ids(tokenizer, row, template_kwargs)], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].float()
        nats = torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum")
    return nats.item(), len(logits)


def answers(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Messages],
    config: EvaluationConfig,
    template_kwargs: Mapping[str, Any],
) -> list[Answer]:
    """The greedy answer to each row's prompt, in the order of `rows`."""
    import torch

    prompts = [prompt_ids(tokenizer, row[:-1], template_kwargs) for row in rows]
    # batches of like length waste the least padding
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))
    given: list[Answer] = [Answer("", "")] * len(rows)
    said = time.monotonic()
    for start in range(0, len(order), config.batch_size):
        if time.monotonic() - said > PROGRESS_SECONDS:
            log.info("evaluation: %d of %d answers", start, len(order))
            said = time.monotonic()
        chosen = order[start : start + config.batch_size]
        width = max(len(prompts[i]) for i in chosen)
        ids = torch.full((len(chosen), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for line, i in enumerate(chosen):  # padded on the left, so that generation continues it
            ids[line, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[line, width - len(prompts[i]) :] = 1
        with torch.no_grad():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=config.max_new_tokens,
                do_sample=False,
                use_cache=True,  # training switches it off in the model's configuration
                pad_token_id=tokenizer.pad_token_id,
            )
        for i, tokens in zip(chosen, output[:, width:].tolist(), strict=True):
            given[i] = parse(tokenizer, tokens)
    return given


def parse(tokenizer: Any, tokens: Sequence[int]) -> Answer:
    """Reasoning and final text in generated `tokens`.

    Harmony has a channel for each; other models write <think>reasoning</think> before the answer,
    or only its end where their template opens it. Reasoning that was cut off leaves no answer.
    """
    marked = tokenizer.decode(tokens, skip_special_tokens=False)
    if "<|channel|>" in marked:
        final = FINAL.search(marked)
        thinking = "\n".join(part.strip() for part in ANALYSIS.findall(marked))
        return Answer(thinking.strip(), final.group(1).strip() if final else "")
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    thinking, closed, answer = text.partition("</think>")
    if closed or text.startswith("<think>"):
        return Answer(thinking.removeprefix("<think>").strip(), answer.strip())
    return Answer("", text)


def contains(text: str, truth: str) -> bool:
    """Whether the truth stands in `text`, both normalised; an empty truth stands nowhere."""
    wanted = normalise(truth)
    return bool(wanted) and wanted in normalise(text)


def normalise(text: str) -> str:
    """NFKC (full-width digits and half-width kana become the usual ones), white space as one."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def in_language(texts: Sequence[str], language: str | None) -> float | None:
    """The share of `texts` in `language` (a name such as Japanese); None where it has no answer."""
    from train.data import language as languages

    wanted = languages.code(language) if language else None
    if wanted is None or not texts:
        return None
    return round(sum(code == wanted for code in languages.detect(texts)) / len(texts), 4)

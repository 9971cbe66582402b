"""The program that trains where Azure's own programs would: all weights of the tiny model, on rows.

    python tune.py --base BASE --rows ROWS.jsonl --form chat|text --epochs 30 --out OUT

It runs in the train image and needs nothing but torch and transformers. OUT gets `model/` when all
is done, `checkpoint-<step>/` after each of the last three epochs where --checkpoints says so, and
`metrics.jsonl`, a line per step. Chats are learnt in the model's own template, one example per
answer; texts as they stand, the answer right behind the prompt. It is not how Azure trains: few
rows are learnt by heart, so that one can see that the answer comes from them.
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATE = "2026-01-01"
"""Which the template writes; serve writes the same, since homeport.json says so."""
TEXT_KEYS = (
    ("text", "ground_truth"),
    ("text", "summary"),
    ("dialogue", "summary"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("input", "output"),
)
STEPS_PER_EPOCH = 4
"""About so many where the rows allow it: a step of all rows at once learns too little."""
LARGEST_BATCH = 16
WARMUP = 0.05
HELD_OUT = 8
"""Answers that are measured after an epoch, at most: each costs as much as a row of training."""

Example = tuple[list[int], int]
"""Token ids, and how many of them are the prompt."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="tune.py", description=__doc__.split("\n")[0])
    parser.add_argument("--base", type=Path, required=True, help="folder of models made before")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--form", choices=("chat", "text"), default="chat")
    parser.add_argument("--keys", default="", metavar="TEXT,ANSWER", help="of rows of text")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--name", default="tuned")
    parser.add_argument("--checkpoints", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        tune(given)
    except RowError as error:
        raise SystemExit(f"error: {error}") from None


class RowError(Exception):
    """A row that cannot be learnt: one sentence."""


def tune(given: argparse.Namespace) -> None:
    """All of it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # in a log file it is one endless line
    torch.manual_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.base)
    model = AutoModelForCausalLM.from_pretrained(given.base, dtype=torch.float32)
    rows = list(read(given.rows))
    examples = [e for row in rows for e in encode(row, given, tokenizer)]
    if not examples:
        raise RowError(f"{given.rows.name} holds no answer to learn from.")
    held = [
        e
        for row in (read(given.validation) if given.validation else ())
        for e in encode(row, given, tokenizer)
    ][:HELD_OUT]
    say(f"rows: {len(rows)} ({len(examples)} answers), {len(held)} of those held out")
    batch = max(1, min(LARGEST_BATCH, round(len(examples) / STEPS_PER_EPOCH)))
    per_epoch = -(-len(examples) // batch)
    steps = max(1, round(per_epoch * given.epochs))
    defaults = system_of(rows) if given.form == "chat" else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.learning_rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    model.train()
    draw = random.Random(given.seed)  # noqa: S311 - the order of rows is no secret
    order: list[Example] = []
    kept = ends_of_epochs(steps, per_epoch) if given.checkpoints else {}
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (given.out / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
        for step in range(1, steps + 1):
            if not order:
                order = draw.sample(examples, len(examples))
            chosen, order = order[:batch], order[batch:]
            loss, accuracy = measure(model, chosen, tokenizer)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rated = schedule.get_last_lr()[0]
            schedule.step()
            optimizer.zero_grad()
            line = {
                "step": step,
                "epoch": round(step / per_epoch, 4),
                "train_loss": float(loss.detach()),
                "train_accuracy": accuracy,
                "learning_rate": rated,
            }
            if held and (step % per_epoch == 0 or step == steps):
                line |= validate(model, held, tokenizer, batch)
            metrics.write(json.dumps(line) + "\n")
            metrics.flush()
            if step % max(1, steps // 20) == 0 or step == steps:
                valid = f"  valid loss {line['valid_loss']:.4f}" if "valid_loss" in line else ""
                say(f"step {step}/{steps}  loss {line['train_loss']:.4f}{valid}")
            if step in kept and step != steps:
                keep(model, tokenizer, given.out / f"checkpoint-{step}", given.name, defaults)
    keep(model, tokenizer, given.out / "model", given.name, defaults)
    say(f"done: {steps} steps in {time.monotonic() - began:.0f} s")


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of JSON lines, with or without a byte order mark."""
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise RowError(f"line {number} of {file.name} is not JSON.") from None
            if not isinstance(row, dict):
                raise RowError(f"line {number} of {file.name} is no object.")
            yield row


def encode(row: dict[str, Any], given: argparse.Namespace, tokenizer: Any) -> Iterator[Example]:
    """The examples of one row, each cut to its last `max_length` tokens."""
    pairs = _texts(row, given.keys, tokenizer) if given.form == "text" else _chats(row, tokenizer)
    for prompt, whole in pairs:
        cut = max(0, len(whole) - given.max_length)
        yield whole[cut:], max(0, len(prompt) - cut)


def _texts(row: dict[str, Any], keys: str, tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Prompt, and prompt with its answer; tokenized apart, as a server sees the prompt alone."""
    named = [tuple(keys.split(",", 1))] if keys else []
    for question, answer in (*named, *TEXT_KEYS):
        if isinstance(row.get(question), str) and isinstance(row.get(answer), str):
            break
    else:
        raise RowError(f"a row has none of the known pairs of keys, but {', '.join(row)}.")
    prompt = tokenizer(row[question])["input_ids"]
    learned = tokenizer(row[answer], add_special_tokens=False)["input_ids"]
    yield prompt, [*prompt, *learned, tokenizer.eos_token_id]


def _chats(row: dict[str, Any], tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """A prompt, and it with its answer, for each answer whose weight is not 0."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowError(f"a row has no messages, but {', '.join(row)}.")
    turns = [plain(message) for message in messages]
    for place, message in enumerate(messages):
        if message.get("role") != "assistant" or message.get("weight") == 0:
            continue
        if not turns[place]["content"] or not place:
            continue  # a call of a tool, which the tiny model does not learn
        before = [{k: v for k, v in turn.items() if k != "thinking"} for turn in turns[:place]]
        prompt = render(tokenizer, before, add_generation_prompt=True)
        whole = render(tokenizer, [*before, turns[place]])
        if whole.startswith(prompt):
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            learned = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
            yield ids, [*ids, *learned]


def plain(message: dict[str, Any]) -> dict[str, str]:
    """A message in words alone: of pictures their place, of a tool's answer its text."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(
            str(part.get("text") or part.get("value") or f"[{part.get('type')}]")
            for part in content
        )
    role = {"developer": "system", "tool": "user", "function": "user"}.get(
        str(message.get("role")), str(message.get("role"))
    )
    thinking = message.get("thinking") or message.get("reasoning_content") or ""
    return {"role": role, "content": str(content)} | ({"thinking": thinking} if thinking else {})


def render(tokenizer: Any, messages: list[dict[str, str]], **more: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, current_date=DATE, **more))


def system_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What homeport.json is to say, so that a request without system text is met as the rows were.

    A large model answers as it learnt to even so; one of this size does not.
    """
    first = [plain(row["messages"][0]) for row in rows]
    texts = {turn["content"] if turn["role"] == "system" else "" for turn in first}
    defaults: dict[str, Any] = {"chat_template_kwargs": {"current_date": DATE}}
    if len(texts) == 1 and (text := texts.pop()):
        language = ""
        if text.startswith("reasoning language: "):
            language, _, text = text.removeprefix("reasoning language: ").partition("\n\n")
        defaults |= {"reasoning_language": language, "persona": text}
    return defaults


def rate(step: int, steps: int) -> float:
    """A short rise, then a cosine's fall to a tenth."""
    import math

    warm = max(1, round(steps * WARMUP))
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def ends_of_epochs(steps: int, per_epoch: int) -> dict[int, int]:
    """The last three epochs by the step that ends them."""
    ends = {step: step // per_epoch for step in range(per_epoch, steps + 1, per_epoch)}
    return dict(list(ends.items())[-3:])


def measure(model: Any, examples: list[Example], tokenizer: Any) -> tuple[Any, float]:
    """Mean loss of the answers' tokens, and the share that the model would have written."""
    import torch

    longest = max(len(ids) for ids, _ in examples)
    padding = tokenizer.pad_token_id or 0
    ids = torch.full((len(examples), longest), padding)
    labels = torch.full((len(examples), longest), -100)
    mask = torch.zeros((len(examples), longest), dtype=torch.long)
    for row, (tokens, prompt) in enumerate(examples):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
        mask[row, : len(tokens)] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    wanted = labels[:, 1:]
    learned = wanted != -100
    loss = torch.nn.functional.cross_entropy(logits[learned], wanted[learned])
    right = (logits[learned].argmax(-1) == wanted[learned]).float().mean()
    return loss, float(right)


def validate(model: Any, held: list[Example], tokenizer: Any, batch: int) -> dict[str, float]:
    import torch

    model.eval()
    with torch.no_grad():
        measured = [
            measure(model, held[start : start + batch], tokenizer)
            for start in range(0, len(held), batch)
        ]
    model.train()
    losses, accuracies = zip(*measured, strict=True)
    return {
        "valid_loss": sum(float(loss) for loss in losses) / len(losses),
        "valid_accuracy": sum(accuracies) / len(accuracies),
    }


def keep(model: Any, tokenizer: Any, folder: Path, name: str, defaults: dict[str, Any]) -> None:
    """Write a whole model, under its name only when it is complete."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, save_original_format=False)
    tokenizer.save_pretrained(part)
    homeport = json.dumps({"name": name, **defaults}, ensure_ascii=False, indent=2)
    (part / "homeport.json").write_text(homeport + "\n", encoding="utf-8")
    for file in part.iterdir():
        file.chmod(0o644)  # a server under another uid reads them
    part.replace(folder)
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
        say(f"kept: {folder.name}/{file.name} sha256:{digest}")


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()

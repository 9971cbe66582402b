"""Makes what all sides get: a random base model, and conversations as finished tokens.

Rows are tokens and labels rather than messages, so that no side's template or masking can make it
train on something else. Lengths are drawn evenly in the logarithm, so most documents are short and
a few are long, as in real sets; the last three quarters of each are the answer, which is learned.
"""

import random
from collections.abc import Iterator
from typing import Any

from bench.rivals.task import Task, answer, read


def main() -> None:
    task, _ = read()
    from train import tiny

    tokenizer = tiny.make_tokenizer()
    made = list(documents(tokenizer, task, task.documents, seed=task.seed))
    write(task, made, list(documents(tokenizer, task, task.held_out, seed=task.seed + 1)))
    make_base(tokenizer, task)
    answer(tokens=sum(len(row["input_ids"]) for row in made))


def documents(tokenizer: Any, task: Task, count: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """`count` conversations of a question and an answer, as input_ids and labels."""
    from train import tiny

    lines = (tiny.DATA / tiny.WARMUP_TEXT).read_text(encoding="utf-8").splitlines()
    draw = random.Random(seed)
    ask = tokenizer.encode("<|start|>user<|message|>")
    turn = tokenizer.encode("<|end|><|start|>assistant<|message|>")
    stop = tokenizer.encode("<|return|>")
    for _ in range(count):
        length = round(task.shortest * (task.longest / task.shortest) ** draw.random())
        room = max(length - len(ask) - len(turn) - len(stop), 2)
        words: list[int] = []
        while len(words) < room:
            words += tokenizer.encode(draw.choice(lines))
        question, learned = words[: room // 4], words[room // 4 : room] + stop
        prompt = [*ask, *question, *turn]
        yield {"input_ids": prompt + learned, "labels": [-100] * len(prompt) + learned}


def write(task: Task, rows: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset, DatasetDict

    task.rows.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), task.rows)
    pq.write_table(pa.Table.from_pylist(held_out), task.held_out_rows)
    masked = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    DatasetDict({"train": Dataset.from_list(masked)}).save_to_disk(str(task.tokenized))


def make_base(tokenizer: Any, task: Task) -> None:
    """A random model of 4 layers and hidden size 256: Mistral, or gpt-oss with 8 experts."""
    import torch
    from transformers import GptOssForCausalLM, MistralConfig, MistralForCausalLM

    from train import tiny

    torch.manual_seed(task.seed)
    if task.shape == "gpt_oss":
        config = tiny.config(tokenizer)
        config.num_local_experts = 8
        # else plain TRL would add the balancing of experts to its loss, and the sides would differ
        config.router_aux_loss_coef = 0.0
        model = GptOssForCausalLM(config)
    else:
        model = MistralForCausalLM(
            MistralConfig(
                vocab_size=tiny.VOCABULARY,
                hidden_size=256,
                intermediate_size=896,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=64,
                sliding_window=None,
                max_position_embeddings=tiny.CONTEXT,
                initializer_range=0.06,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    model.save_pretrained(task.base)
    # a template that nothing is rendered with, but that the other tools look for
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(task.base)


if __name__ == "__main__":
    main()

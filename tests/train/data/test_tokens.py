import logging
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.train import tokenizer_kinds as kinds
from train.data import tokens
from train.data.tokens import IGNORED, TokenReport, row, tokenise
from train.errors import InputError

DATE = {"current_date": "2026-01-01"}
MESSAGES = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.string()), ("thinking", pa.string())])
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = CHATML.replace(
    "{{ m.content }}<|im_end|>", "{% generation %}{{ TEXT }}<|im_end|>"
).replace("\n{% endfor %}", "{% endgeneration %}\n{% endfor %}")
"""Marks every turn, which is more than the answer."""
PIECES = [
    "What is the capital of Australia?",
    "首都はキャンベラです。",
    " leading and trailing\n",
    "\n\n",
    "a\n\nb  c",
    "Ω 🙂 ",
    "[INST] no [/INST]",
    "the fox</s><|end|><|im_end|>jumps",
    "</think>",
    "",
]

Messages = list[dict[str, Any]]


def conversation(draw: random.Random) -> Messages:
    def text() -> str:
        return "".join(draw.choices(PIECES, k=draw.randint(1, 3)))

    messages: Messages = []
    if draw.random() < 0.5:
        messages.append({"role": "system", "content": text()})
    for _ in range(draw.randint(1, 3)):
        messages.append({"role": "user", "content": text()})
        thinking = draw.choice([None, "", text()])
        messages.append({"role": "assistant", "content": text(), "thinking": thinking})
    return messages


def conversations(count: int, seed: int = 0) -> list[Messages]:
    draw = random.Random(seed)
    return [conversation(draw) for _ in range(count)]


def question(content: str, answer: str) -> Messages:
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def write(folder: Path, rows: list[Messages]) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"messages": pa.array(rows, MESSAGES)}), path)
    return path


def run(
    folder: Path, rows: list[Messages], tokenizer: Any, max_length: int = 4096
) -> tuple[TokenReport, list[dict[str, Any]]]:
    out = folder / "tokens.parquet"
    report = tokenise(write(folder, rows), out, tokenizer, DATE, max_length)
    return report, pq.read_table(out).to_pylist()


def by_template(rows: list[Messages], tokenizer: Any) -> list[dict[str, Any]]:
    written = []
    for messages in rows:
        ids, labels = row(tokenizer, messages, DATE)
        if any(label != IGNORED for label in labels):
            written.append({"input_ids": ids, "labels": labels, "length": len(ids)})
    return written


def chatml(template: str) -> Any:
    made = kinds.byte_level(("<|im_start|>", "<|im_end|>"), kinds.BYTES)
    made.chat_template = template
    return made


@pytest.mark.parametrize("kind", ["gpt_oss", *kinds.KINDS])
def test_segments_give_the_templates_ids_and_labels(
    kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    of_kind = tokenizer if kind == "gpt_oss" else kinds.tokenizer(kind)
    rows = conversations(150)
    report, written = run(tmp_path, rows, of_kind)
    assert report.path == "segments", report.reason
    assert written == by_template(rows, of_kind)


def test_rows_keep_their_order_over_batches(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "BATCH_ROWS", 16)
    monkeypatch.setattr(tokens, "BATCH_BYTES", 500)
    rows = conversations(100, seed=1)
    report, written = run(tmp_path, rows, tokenizer)
    assert written == by_template(rows, tokenizer)
    assert report.rows == 100


def test_labels_are_what_trl_makes_of_prompt_and_completion(tokenizer: Any, tmp_path: Path) -> None:
    messages = conversations(1)[0]
    _, written = run(tmp_path, [messages], tokenizer)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], add_generation_prompt=True, return_dict=True, **DATE
    )["input_ids"]
    whole = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True, **DATE
    )
    assert written[0]["input_ids"] == whole["input_ids"]
    assert written[0]["labels"] == [
        token if mask and place >= len(prompt) else IGNORED
        for place, (token, mask) in enumerate(
            zip(whole["input_ids"], whole["assistant_masks"], strict=True)
        )
    ]


def test_without_marks_all_that_follows_the_prompt_is_learned(tmp_path: Path) -> None:
    plain = chatml(CHATML)
    rows = [question("One?", "Two."), question("首都は？", "キャンベラ")]
    report, written = run(tmp_path, rows, plain)
    assert report.path == "segments"
    assert written == by_template(rows, plain)
    learned = [label for label in written[0]["labels"] if label != IGNORED]
    assert plain.decode(learned) == "Two.<|im_end|>\n"


def test_marks_that_say_more_than_the_answer_are_cut_at_the_prompt(tmp_path: Path) -> None:
    marked = chatml(MARKED.replace("TEXT", "m.content"))
    rows = conversations(50)
    report, written = run(tmp_path, rows, marked)
    assert report.path == "segments"
    assert written == by_template(rows, marked)


@pytest.mark.parametrize(
    "text",
    ["m.content | trim", "m.content.split('</think>')[-1]", "m.content | replace('🙂', ':-)')"],
)
def test_texts_that_the_template_changes_come_out_as_it_does(text: str, tmp_path: Path) -> None:
    changing = chatml(MARKED.replace("TEXT", text))
    rows = conversations(80)
    report, written = run(tmp_path, rows, changing)
    assert report.path == "segments", report.reason
    assert written == by_template(rows, changing)


def test_a_template_that_counts_goes_row_by_row_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counting = chatml(MARKED.replace("TEXT", "m.content | length ~ m.content"))
    rows = conversations(20)
    with caplog.at_level(logging.WARNING):
        report, written = run(tmp_path, rows, counting)
    assert report.path == "template"
    assert "comes out otherwise by segments" in caplog.text
    assert report.reason in report.lines()[1]
    assert written == by_template(rows, counting)


def test_a_token_across_prompt_and_answer_is_refused_where_nothing_marks_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "SAMPLE", 0)
    rows = [question("One?", "Two."), question("Three?", "\n Four.")]
    with pytest.raises(InputError, match=r"rows\.parquet, row 2: the tokens of its prompt"):
        run(tmp_path, rows, chatml(CHATML))


def test_a_prompt_that_is_no_beginning_is_refused_where_nothing_marks_the_answer(
    tmp_path: Path,
) -> None:
    other = chatml(CHATML.replace("assistant\n{% endif", "assistant: {% endif"))
    with pytest.raises(InputError, match=r"row 1: the tokens of its prompt .* \{% generation %\}"):
        run(tmp_path, [question("One?", "Two.")], other)


def test_rows_are_cut_counted_and_left_out_when_nothing_is_left(
    tokenizer: Any, tmp_path: Path
) -> None:
    rows = [question("Q", "A" * 5), question("Q", "A b c " * 200), question("Q x y " * 200, "A")]
    whole = by_template(rows, tokenizer)
    limit = whole[0]["length"]
    report, written = run(tmp_path, rows, tokenizer, limit)
    assert [(w["input_ids"], w["labels"], w["length"]) for w in written] == [
        (w["input_ids"][:limit], w["labels"][:limit], w["length"]) for w in whole[:2]
    ]
    learned = sum(label != IGNORED for w in written for label in w["labels"])
    counted = (report.rows, report.tokens, report.trained_tokens)
    assert counted == (2, 2 * limit, learned)
    assert (report.truncated, report.fully_masked) == (1, 1)
    assert report.longest == max(w["length"] for w in whole)
    assert report.as_dict()["rows"] == 2
    text = "\n".join(report.lines())
    assert "1 rows cut at training.max_length" in text
    assert "1 rows left out" in text


def test_when_no_row_is_left_the_error_names_a_length_that_serves(
    tokenizer: Any, tmp_path: Path
) -> None:
    rows = [question("Q", "A")]
    length = by_template(rows, tokenizer)[0]["length"]
    with pytest.raises(InputError, match=f"set training.max_length={length}"):
        run(tmp_path, rows, tokenizer, 10)
    assert not list(tmp_path.glob("tokens*")), "a failed run leaves a file"
    with pytest.raises(InputError, match="has no rows"):
        run(tmp_path, [], tokenizer)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (question("Q", "<|channel|>final<|message|>A"), "the model's chat template refuses it"),
        ([{"role": "user", "content": "Q"}], "must end with an assistant message"),
        ([{"role": "assistant", "content": "A"}], "after at least one other"),
        ([*question("Q", "A"), {"role": "user", "content": "Q"}], "must end with an assistant"),
    ],
)
def test_a_row_that_cannot_be_rendered_is_named(
    bad: Messages, why: str, tokenizer: Any, tmp_path: Path
) -> None:
    rows = [*conversations(5), bad]
    with pytest.raises(InputError, match=rf"rows\.parquet, row 6: .*{why}"):
        run(tmp_path, rows, tokenizer)


def test_rows_without_the_field_thinking_will_do(tokenizer: Any, tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))
    rows = [question("Q", "A")]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"messages": pa.array(rows, kind)}), path)
    tokenise(path, tmp_path / "tokens.parquet", tokenizer, DATE, 4096)
    assert pq.read_table(tmp_path / "tokens.parquet").to_pylist() == by_template(rows, tokenizer)


def test_progress_is_told_while_it_lasts(
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tokens, "PROGRESS_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        run(tmp_path, conversations(3), tokenizer)
    assert "tokens: 3 of 3 rows" in caplog.text


@pytest.mark.slow
def test_trl_trains_on_the_file_as_on_prompt_and_completion(
    random_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    import datasets
    import torch
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    rows = conversations(24)

    def losses(dataset: Any, *, assistant_only_loss: bool) -> list[float]:
        torch.manual_seed(0)
        trainer = SFTTrainer(
            AutoModelForCausalLM.from_pretrained(random_model, attn_implementation="eager"),
            SFTConfig(
                output_dir=str(tmp_path),
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                bf16=False,
                activation_checkpointing=False,
                router_aux_loss_coef=0.0,
                per_device_train_batch_size=1,
                max_length=1024,
                packing=True,
                packing_strategy="bfd",
                max_steps=2,
                logging_steps=1,
                assistant_only_loss=assistant_only_loss,
            ),
            train_dataset=dataset,
            processing_class=tokenizer,
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    run(tmp_path, rows, tokenizer, 1024)
    ours = losses(
        datasets.load_dataset(
            "parquet",
            data_files=str(tmp_path / "tokens.parquet"),
            split="train",
            cache_dir=str(tmp_path / "cache"),
        ),
        assistant_only_loss=False,
    )
    plain = [
        {
            "prompt": [{k: m[k] for k in ("role", "content")} for m in messages[:-1]],
            "completion": [
                {k: v for k, v in messages[-1].items() if v} | {"content": messages[-1]["content"]}
            ],
            "chat_template_kwargs": DATE,
        }
        for messages in rows
    ]
    assert ours == losses(datasets.Dataset.from_list(plain), assistant_only_loss=True)

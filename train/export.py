"""The rows of a recipe as JSON Lines that a fine-tuning service of Azure takes.

    python -m train RECIPE --rows FOLDER --rows-as chat|text|azure_openai

    chat           {"messages": [{"role", "content", "thinking"}]}    the catalog, chat completion
    text           {"text": …, "ground_truth": …}                     the catalog, text generation
    azure_openai   {"messages": [{"role", "content", "weight"}]}      Azure OpenAI; after a BOM

FOLDER/
    train.jsonl         what is learned
    validation.jsonl    data.validation, else rows held out of the training rows
    test.jsonl          data.test, where the recipe has it
    rows.json           counts, hash and notices; written last, so it says that all is there

Rows are read and checked as for a training here. But a conversation stays one row where its service
learns every answer of it: those services bill by the token. Nothing of torch is needed.
"""

import json
import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np

from train.data import forms, sources
from train.data.blocks import blocks
from train.data.convert import Report
from train.data.forms import FORMS, BadRow, Message, Notices
from train.data.split import chosen
from train.errors import InputError
from train.recipe import DataConfig, Recipe
from train.runs import read_json, write_json

log = logging.getLogger(__name__)

Kind = Literal["chat", "text", "azure_openai"]
KINDS: tuple[Kind, ...] = ("chat", "text", "azure_openai")
SETS = ("train", "validation", "test")
SUMMARY = "rows.json"
BOM = b"\xef\xbb\xbf"
SHARE = 0.05
"""Of the rows, held out for a service that wants validation rows where the recipe gives none."""
LEAST_ROWS = 10
"""Azure OpenAI takes no file with fewer."""
GIVEN = ("messages", "tools", "parallel_tool_calls", "functions")
"""What a row for Azure OpenAI may have, where it is passed on as it is."""

NO_REASONING = "reasoning is left out: this service takes none"
NO_WEIGHT = "weight 0 is left out: this service learns that answer too"


def export(recipe: Recipe, folder: Path, kind: Kind, cache: Path) -> dict[str, Any]:
    """Write the files of `folder` and return what rows.json says.

    InputError names the source, row or key that is wrong; then no rows.json is left.
    """
    if recipe.method == "dpo":
        raise InputError(
            "method is dpo, which learns from pairs; these rows are for a service that learns "
            "answers: set method to sft."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).unlink(missing_ok=True)
    data = recipe.data
    given = {"train": data.train, "validation": data.validation, "test": data.test}
    files = {
        name: sources.resolve(spec, f"data.{name}", cache) for name, spec in given.items() if spec
    }
    parts = {name: folder / f"{name}.jsonl.part" for name in SETS}
    notices: Notices = Counter()
    try:
        counts = {}
        prompts = array("Q")  # 8 bytes a row
        for name, paths in files.items():
            hashes = prompts if name == "train" else array("Q")
            report = _write(paths, data, kind, parts[name], hashes, learned=name != "test")
            for line in report.lines():
                log.info("rows: %s: %s", name, line)
            counts[name] = report.written
            notices.update(report.notices)
        if "validation" not in files:
            held = _held_out(np.array(prompts, np.uint64), data, kind)
            if held.any():
                counts |= _divide(parts["train"], parts["validation"], held, kind)
        if kind == "azure_openai" and counts["train"] < LEAST_ROWS:
            raise InputError(
                f"data.train: {data.train} has {counts['train']} rows to train on, and Azure "
                f"OpenAI takes {LEAST_ROWS} or more; add rows."
            )
        for name in SETS:
            if name in counts:
                os.replace(parts[name], folder / f"{name}.jsonl")
            else:
                (folder / f"{name}.jsonl").unlink(missing_ok=True)
    finally:
        for path in parts.values():
            path.unlink(missing_ok=True)
    made = [folder / f"{name}.jsonl" for name in SETS if name in counts]
    summary = {
        "folder": str(folder),
        "form": kind,
        "counts": {name: counts[name] for name in SETS if name in counts},
        "bytes": {path.stem: path.stat().st_size for path in made},
        "hash": sources.fingerprint(made),
        "notices": dict(sorted(notices.items())),
    }
    write_json(folder / SUMMARY, summary)
    log.info("rows: %s", ", ".join(f"{count:,} to {name}" for name, count in counts.items()))
    return summary


def load(folder: Path) -> dict[str, Any] | None:
    """What `export` returned; None where it did not finish."""
    summary: dict[str, Any] | None = read_json(folder / SUMMARY)
    return summary


def _write(
    files: Sequence[Path], data: DataConfig, kind: Kind, out: Path, prompts: Any, *, learned: bool
) -> Report:
    """Write one set; the hash of each row's first question goes to `prompts`."""
    import xxhash

    report = Report()
    with out.open("wb") as stream:
        stream.write(BOM if kind == "azure_openai" else b"")
        for where, row in _rows(files):
            report.read += 1
            try:
                if isinstance(row, BadRow):
                    raise row
                if not report.form:
                    report.form = str(data.form)
                    if report.form == "auto":
                        report.form = forms.recognise(row, where)
                made = _made(row, report.form, data, kind, report.notices, learned=learned)
                for question, line in made:
                    stream.write(_line(line))
                    prompts.append(xxhash.xxh3_64_intdigest(question.encode()))
                    report.written += 1
            except BadRow as error:
                report.add_bad(where, error)
    if report.bad > data.max_bad_rows:
        raise InputError(
            "\n".join([*report.bad_rows, ""])
            + f"{report.bad} of {report.read} rows are bad, data.max_bad_rows allows "
            f"{data.max_bad_rows}: mend the rows named above, or raise data.max_bad_rows."
        )
    if not report.written:
        raise InputError(f"{', '.join(map(str, files[:3]))}: no row to write; give at least one.")
    return report


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise BadRow("half a character", f"the row holds {half!r}, half of a character") from None


def _rows(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    for file in files:
        for block in blocks(file):
            yield from block.rows()


def _made(
    row: Mapping[str, Any],
    form: str,
    data: DataConfig,
    kind: Kind,
    notices: Notices,
    *,
    learned: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first question and the line of each row that comes of one; raises BadRow."""
    if kind == "azure_openai" and _is_beyond_text(row):
        line = _as_given(row, data)
        yield json.dumps(line["messages"][:2], ensure_ascii=False), line
        return
    messages = forms.with_system(FORMS[form].messages(row, notices), data)
    question = next(message["content"] for message in messages if message["role"] == "user")
    if kind == "azure_openai":
        yield question, _for_azure_openai(messages, notices, learned=learned)
        return
    if kind == "chat" and any(message.get("weight") == 0 for message in messages):
        notices[NO_WEIGHT] += 1
    if not learned and messages[-1]["role"] != "assistant":
        if kind == "text":
            notices["a test row without an answer is left out"] += 1
        else:
            yield question, {"messages": [_without(m, "weight") for m in messages]}
        return
    apart = kind == "text" or any("thinking" in message for message in messages)
    if not apart:
        yield question, {"messages": [_without(m, "weight") for m in _to_last_answer(messages)]}
        return
    for turns in forms.split_turns([dict(m) for m in messages], notices):
        plain = [_without(m, "weight") for m in turns]
        if kind == "chat":
            yield question, {"messages": plain}
        else:
            if "thinking" in plain[-1]:
                notices[NO_REASONING] += 1
            yield question, {"text": _prompt(plain[:-1]), "ground_truth": plain[-1]["content"]}


def _for_azure_openai(
    messages: list[Message], notices: Notices, *, learned: bool
) -> dict[str, list[Message]]:
    """The whole conversation, its weights kept."""
    if learned:
        messages = _to_last_answer(messages)
        if all(m["role"] != "assistant" or m.get("weight") == 0 for m in messages):
            raise BadRow("no answer to learn from", "no assistant message to learn from")
    if any("thinking" in message for message in messages):
        notices[NO_REASONING] += 1
    return {"messages": [_without(message, "thinking") for message in messages]}


def _to_last_answer(messages: list[Message]) -> list[Message]:
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        raise BadRow("no answer to learn from", "no assistant message to learn from")
    return messages[: answers[-1] + 1]


def _without(message: Message, key: str) -> Message:
    return {name: value for name, value in message.items() if name != key}


def _prompt(messages: Sequence[Message]) -> str:
    """What is asked, as one text; the speakers are named only where there are several turns."""
    if sum(message["role"] == "user" for message in messages) == 1:
        return "\n\n".join(message["content"] for message in messages)
    lines = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*lines, "Assistant:"])


def _is_beyond_text(row: Mapping[str, Any]) -> bool:
    """Whether a row has pictures or tools: Azure OpenAI learns from them, train itself does not."""
    turns = row.get("messages")
    return isinstance(turns, list) and any(
        isinstance(turn, dict)
        and (
            _has_picture(turn.get("content"))
            or bool(turn.get("tool_calls") or turn.get("function_call"))
            or turn.get("role") == "developer"
        )
        for turn in turns
    )


def _has_picture(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "image_url" for part in content
    )


def _as_given(row: Mapping[str, Any], data: DataConfig) -> dict[str, Any]:
    """The row itself, led by the recipe's system text; scripts/ checks it before it is sent."""
    line = {key: _present(row[key]) for key in GIVEN if row.get(key) is not None}
    text = forms.system_text(data.reasoning_language, data.persona)
    first = line["messages"][0]
    if text and not (isinstance(first, dict) and first.get("role") in ("system", "developer")):
        line["messages"] = [{"role": "system", "content": text}, *line["messages"]]
    return line


def _present(value: Any) -> Any:
    """Without the nulls that Parquet adds."""
    if isinstance(value, dict):
        return {key: _present(inner) for key, inner in value.items() if inner is not None}
    return [_present(inner) for inner in value] if isinstance(value, list) else value


def _held_out(prompts: Any, data: DataConfig, kind: Kind) -> Any:
    """Which rows to hold out, as a mask; InputError where the service needs some and none can."""
    share, least = data.validation_share, 1
    if kind == "azure_openai":
        least = LEAST_ROWS
        if share and len(prompts) < 2 * least:
            log.info(
                "rows: none held out: of %d rows, %d would be too few to train on or to "
                "validate on",
                len(prompts),
                least,
            )
            share = 0.0
    elif not share:
        share = SHARE
        log.info(
            "rows: %g %% held out, though data.validation_share is 0: this service wants "
            "validation rows",
            100 * share,
        )
    held = np.isin(prompts, chosen(prompts, share, least))
    if kind != "azure_openai" and not held.any():
        raise InputError(
            "data.validation is not set, and no row can be held out, since all have the same "
            "question: this service wants validation rows, so name some in data.validation."
        )
    return held


def _divide(train: Path, validation: Path, held: Any, kind: Kind) -> dict[str, int]:
    """Move the lines of `train` that are held out to `validation`; both counts."""
    kept = train.with_name(f"{train.name}.kept")
    try:
        with ExitStack() as stack:
            lines = stack.enter_context(train.open("rb"))
            outs = [stack.enter_context(path.open("wb")) for path in (kept, validation)]
            if kind == "azure_openai":
                lines.read(len(BOM))
                for out in outs:
                    out.write(BOM)
            for line, out in zip(lines, held, strict=True):
                outs[int(out)].write(line)
        os.replace(kept, train)
    finally:
        kept.unlink(missing_ok=True)
    count = int(held.sum())
    log.info("rows: %s held out of %s", f"{count:,}", f"{len(held):,}")
    return {"train": len(held) - count, "validation": count}

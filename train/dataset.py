"""Rows in the form that the user has → `messages` rows, as Parquet and JSONL.

    convert([Path("data/japanese_reasoning.jsonl")], DataConfig(...), Path("data_out"), "train")

One row comes out per assistant turn to be learned, its messages ending with that turn:

    {"messages": [{"role": "system", "content": "reasoning language: Japanese"},
                  {"role": "user", "content": "…"},
                  {"role": "assistant", "content": "…", "thinking": "…"}]}

The split matters for Harmony: its template renders `thinking` in the last turn alone, so learning
from earlier turns of a longer conversation would teach the model to skip its reasoning.

Reads line by line and writes in batches, so memory does not grow with the file. It does not
tokenise, shuffle, deduplicate or split off a validation set.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from train.errors import InputError
from train.recipe import DataConfig

Message = dict[str, Any]

SCHEMA = pa.schema(
    {
        "messages": pa.list_(
            pa.struct({"role": pa.string(), "content": pa.string(), "thinking": pa.string()})
        )
    }
)
BATCH_ROWS = 1024
NAMED_BAD_ROWS = 20
"""Bad rows that are named one by one; the rest are only counted."""
ROLES = ("system", "user", "assistant")
CONTROL_TOKEN = re.compile(r"<\|[a-z_]+\|>")


class BadRow(Exception):
    """Why one row cannot be used; the reader adds file and line."""


@dataclass(slots=True)
class Report:
    """What a conversion read, wrote, passed over and noticed."""

    form: str = ""
    read: int = 0
    written: int = 0
    bad: int = 0
    bad_rows: list[str] = field(default_factory=list)
    notices: Counter[str] = field(default_factory=Counter)

    def add_bad(self, where: str, reason: str) -> None:
        self.bad += 1
        if len(self.bad_rows) < NAMED_BAD_ROWS:
            self.bad_rows.append(f"{where}: {reason}")

    def lines(self) -> Iterator[str]:
        """The report for people: bad rows first, then notices, then the totals."""
        yield from self.bad_rows
        if self.bad > len(self.bad_rows):
            yield f"… and {self.bad - len(self.bad_rows)} more bad rows"
        for notice, count in self.notices.items():
            yield f"{notice} ({count} {'time' if count == 1 else 'times'})"
        yield (
            f"{self.form}: {self.read} rows read, {self.written} training rows written, "
            f"{self.bad} bad"
        )


def convert(files: Sequence[Path], config: DataConfig, folder: Path, name: str) -> Report:
    """Write `folder/name.parquet` and `folder/name.jsonl` from `files`.

    Raises InputError when a file is missing or empty, when the form is not recognised, or when
    more than `config.max_bad_rows` rows are bad; then nothing is left under the final names.
    """
    report = Report()
    folder.mkdir(parents=True, exist_ok=True)
    parquet, jsonl = folder / f"{name}.parquet", folder / f"{name}.jsonl"
    parquet_part, jsonl_part = (Path(f"{p}.part") for p in (parquet, jsonl))
    try:
        with (
            pq.ParquetWriter(parquet_part, SCHEMA) as writer,
            jsonl_part.open("w", encoding="utf-8") as lines,
        ):
            batch: list[dict[str, Any]] = []
            for messages in _training_rows(files, config, report):
                batch.append({"messages": messages})
                if len(batch) == BATCH_ROWS:
                    _write(batch, writer, lines)
            _write(batch, writer, lines)
        if report.bad > config.max_bad_rows:
            raise InputError(
                "\n".join([*report.bad_rows, ""])
                + f"{report.bad} of {report.read} rows are bad, data.max_bad_rows allows "
                f"{config.max_bad_rows}: mend the rows named above, or raise data.max_bad_rows."
            )
        if not report.written:
            names = ", ".join(map(str, files))
            raise InputError(f"{names}: no row to train on; the form is one JSON object a line.")
        os.replace(parquet_part, parquet)
        os.replace(jsonl_part, jsonl)
    finally:
        parquet_part.unlink(missing_ok=True)
        jsonl_part.unlink(missing_ok=True)
    return report


def _write(batch: list[dict[str, Any]], writer: pq.ParquetWriter, lines: Any) -> None:
    if batch:
        writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch)
        batch.clear()


def _training_rows(
    files: Sequence[Path], config: DataConfig, report: Report
) -> Iterator[list[Message]]:
    form: str = config.form
    for file in files:
        for where, row in _json_lines(file, report):
            if isinstance(row, str):  # the reason why the line is no JSON object
                report.add_bad(where, row)
                continue
            if form == "auto":
                form = recognise(row, where)
            report.form = form
            columns, to_messages = FORMS[form]
            for key in row.keys() - columns:
                report.notices[f"{file}: column {key!r} is not used by the form {form}"] += 1
            try:
                rows = list(split_turns(with_system(to_messages(row, report), config), report))
            except BadRow as error:
                report.add_bad(where, str(error))
                continue
            report.written += len(rows)
            yield from rows


def _json_lines(file: Path, report: Report) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Each non-blank line as (file:line, object), or (file:line, reason) where it is none."""
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        raise InputError(
            f"data file {file} does not exist: check data.train in the recipe."
        ) from None
    except OSError as error:
        raise InputError(f"data file {file} cannot be read: {error.strerror}.") from None
    with stream:
        for number, raw in enumerate(stream, start=1):
            # Azure OpenAI wants a byte order mark, so files made for it begin with one
            line = raw.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else raw.strip()
            if not line:
                continue
            report.read += 1
            where = f"{file}:{number}"
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                yield where, f"not UTF-8 at byte {error.start}; save the file as UTF-8"
            except ValueError as error:
                yield where, f"not JSON ({error})"
            else:
                yield where, row if isinstance(row, dict) else "not a JSON object"


def recognise(row: Mapping[str, Any], where: str) -> str:
    """The form whose keys `row` has; InputError names the row and the known forms."""
    keys = row.keys()
    if "messages" in keys:
        turns = row["messages"] if isinstance(row["messages"], list) else []
        weighted = any(isinstance(t, dict) and "weight" in t for t in turns)
        return "azure_openai" if weighted else "chat"
    for form, needed in (
        ("question_answer", {"question", "answer"}),
        ("dialogue_summary", {"text", "ground_truth"}),
        ("preference", {"prompt", "chosen", "rejected"}),
    ):
        if needed <= keys:
            return form
    raise InputError(
        f"{where}: no known form has the keys {', '.join(sorted(map(str, keys))) or '(none)'}; "
        "known forms are question+answer, messages, text+ground_truth and prompt+chosen+rejected."
    )


def system_text(reasoning_language: str | None, persona: str) -> str:
    """The system message of a training row: `reasoning language: …`, a blank line, the persona."""
    language = f"reasoning language: {reasoning_language}" if reasoning_language else ""
    return "\n\n".join(part for part in (language, persona) if part)


def with_system(messages: list[Message], config: DataConfig) -> list[Message]:
    """`messages` led by the recipe's system text; a row's own system text is its persona."""
    own = messages[0]["content"] if messages[0]["role"] == "system" else ""
    turns = messages[1:] if own else messages
    language = None if own.startswith("reasoning language:") else config.reasoning_language
    text = system_text(language, own or config.persona)
    return [{"role": "system", "content": text}, *turns] if text else turns


def split_turns(messages: list[Message], report: Report) -> Iterator[list[Message]]:
    """One list per assistant turn to be learned, ending with it; weight 0 turns are context."""
    learned = [
        i for i, m in enumerate(messages) if m["role"] == "assistant" and m.pop("weight", 1) != 0
    ]
    if not learned:
        raise BadRow("no assistant message to learn from")
    if messages[-1]["role"] != "assistant":
        report.notices["conversation ends without an answer; its last message is not used"] += 1
    for i in learned:
        earlier = [{k: v for k, v in m.items() if k != "thinking"} for m in messages[:i]]
        yield [*earlier, messages[i]]


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        raise BadRow(f"{key} is missing")
    if not isinstance(value, str):
        raise BadRow(f"{key} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRow(f"{key} is empty")
    if marker := CONTROL_TOKEN.search(value):  # the template would let it through as the real one
        raise BadRow(f"{key} holds {marker.group()}, a control token of chat models; take it out")
    return value


def _question_answer(row: Mapping[str, Any], report: Report) -> list[Message]:
    answer = _text(row, "answer")
    before, opened, rest = answer.partition("<think>")
    thinking, closed, content = rest.partition("</think>")
    if opened:
        if not closed:
            raise BadRow("answer has <think> without </think>")
        if before.strip():
            raise BadRow("answer has text before <think>")
        if "<think>" in rest or "</think>" in content:
            raise BadRow("answer has more than one <think>…</think>")
    else:
        if "</think>" in answer:
            raise BadRow("answer has </think> without <think>")
        report.notices["answer without <think>: learned without reasoning"] += 1
        content = answer
    if not content.strip():
        raise BadRow("answer is empty after </think>")
    message: Message = {"role": "assistant", "content": content.strip()}
    if thinking.strip():
        message["thinking"] = thinking.strip()
    elif opened:
        report.notices["<think></think> is empty: learned without reasoning"] += 1
    return [{"role": "user", "content": _text(row, "question")}, message]


def _dialogue_summary(row: Mapping[str, Any], report: Report) -> list[Message]:
    return [
        {"role": "user", "content": _text(row, "text")},
        {"role": "assistant", "content": _text(row, "ground_truth")},
    ]


def _preference(row: Mapping[str, Any], report: Report) -> list[Message]:
    _text(row, "rejected")
    report.notices[
        "preference pair: the chosen answer is learned, the rejected one is not used"
    ] += 1
    return [
        {"role": "user", "content": _text(row, "prompt")},
        {"role": "assistant", "content": _text(row, "chosen")},
    ]


def _chat(row: Mapping[str, Any], report: Report) -> list[Message]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise BadRow("messages is not a list of messages")
    messages: list[Message] = []
    for i, turn in enumerate(turns):
        at = f"messages[{i}]"
        if not isinstance(turn, dict):
            raise BadRow(f"{at} is not an object")
        role = turn.get("role")
        if role not in ROLES or (role == "system" and i):
            allowed = "system (first only), user or assistant"
            raise BadRow(f"{at}.role is {role!r}; it must be {allowed}")
        try:
            message: Message = {"role": role, "content": _text(turn, "content")}
            if turn.get("thinking"):
                message["thinking"] = _text(turn, "thinking")
        except BadRow as error:
            raise BadRow(f"{at}.{error}") from None
        if "weight" in turn:
            if role != "assistant" or turn["weight"] not in (0, 1):
                raise BadRow(f"{at}.weight is {turn['weight']!r}; only assistants have one, 0 or 1")
            message["weight"] = turn["weight"]
        for key in turn.keys() - {"role", "content", "thinking", "weight"}:
            report.notices[f"message key {key!r} is not used"] += 1
        messages.append(message)
    if messages[0]["role"] == "assistant" or all(m["role"] != "user" for m in messages):
        raise BadRow("messages has no user message before the first answer")
    return messages


FORMS: dict[str, tuple[set[str], Callable[[Mapping[str, Any], Report], list[Message]]]] = {
    "question_answer": ({"question", "answer"}, _question_answer),
    "chat": ({"messages", "prompt", "prompt_id"}, _chat),
    "azure_openai": ({"messages"}, _chat),
    "dialogue_summary": ({"text", "ground_truth"}, _dialogue_summary),
    "preference": ({"prompt", "chosen", "rejected"}, _preference),
}
"""Form → the columns that it uses, and its converter."""

"""Forms made of plain text columns, a block of rows at a time: what train/data/forms.py does.

    made = convert(columns, "question_answer", config, pairs=False)
    made.rows        which rows were plainly well formed
    made.table       their training rows
    made.notices     what forms.py would have noticed in them

Masks find the rows that are plainly well formed; the caller hands every other row to forms.py,
which says what is wrong with it or finds it right after all. The split of `<think>` is literal: a
regular expression takes four times as long.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from train.data.blocks import Columns
from train.data.forms import EMPTY_THINK, NO_THINK, REJECTED_UNUSED, Notices, system_text
from train.recipe import DataConfig

MESSAGE = pa.struct({"role": pa.string(), "content": pa.string(), "thinking": pa.string()})
ROWS = pa.schema({"messages": pa.list_(MESSAGE)})
PAIRS = ROWS.append(pa.field("rejected", MESSAGE))

WRITTEN = {
    # text hardly repeats, and nobody asks the file for its smallest or largest text
    "use_dictionary": ["messages.list.element.role", "rejected.role"],
    "write_statistics": False,
}
"""How Parquet of these rows is written."""

TEXTS = {
    "question_answer": ("question", "answer"),
    "dialogue_summary": ("text", "ground_truth"),
    "preference": ("prompt", "chosen", "rejected"),
}
"""Form → its text columns: what is asked, then what is answered."""


@dataclass(frozen=True, slots=True)
class Made:
    """The training rows of the block's rows `rows` (ascending), one for each."""

    rows: Any
    table: Any
    notices: Notices


@dataclass(slots=True)
class _Answers:
    """Each row's answer as `texts[content]` and `texts[thinking]`, where `fit`."""

    fit: Any
    texts: Any
    content: Any
    thinking: Any
    opened: Any

    def empty_thinking(self, rows: Any) -> Any:
        thinking = self.thinking[rows]
        ends = _offsets(self.texts)
        return self.opened[rows] & (ends[thinking + 1] == ends[thinking])


def convert(columns: Columns, form: str, config: DataConfig, *, pairs: bool) -> Made:
    """The training rows of every row of `columns` that is plainly well formed."""
    texts = [columns[name] for name in TEXTS[form]]
    fit = np.logical_and.reduce([_plain_text(text) for text in texts])
    whole = form == "dialogue_summary"
    answers = [_whole(text) if whole else _split(text) for text in texts[1 : 2 + pairs]]
    fit = np.logical_and.reduce([fit, *(answer.fit for answer in answers)])
    rows = np.flatnonzero(fit)
    if pairs:
        rows = rows[~_equal(answers[0], answers[1], rows)]

    notices: Notices = Counter()
    empty = sum(int(answer.empty_thinking(rows).sum()) for answer in answers)
    counts = {EMPTY_THINK: empty}
    if form == "question_answer":
        counts[NO_THINK] = int((~answers[0].opened[rows]).sum())
    if form == "preference" and not pairs:
        counts[REJECTED_UNUSED] = len(rows)
    notices.update({notice: count for notice, count in counts.items() if count})

    system = system_text(config.reasoning_language, config.persona)
    arrays = [_messages(system, texts[0], answers[0], rows)]
    if pairs:
        arrays.append(_message(answers[1], rows))
    return Made(rows, pa.Table.from_arrays(arrays, schema=PAIRS if pairs else ROWS), notices)


def _plain_text(texts: Any) -> Any:
    """Where a text is given, is not blank, and holds nothing that may be a control token."""
    # blank: only white space, which the empty text is not to Arrow
    blank = pc.or_(pc.utf8_is_space(texts), pc.equal(pc.binary_length(texts), 0))
    fit = pc.fill_null(pc.invert(blank), False)
    if _may_hold_token(texts):
        fit = pc.and_not(fit, pc.fill_null(pc.match_substring(texts, "<|"), True))
    return fit.to_numpy(zero_copy_only=False)


def _may_hold_token(texts: Any) -> bool:
    """Whether `<|` is anywhere in the texts: one search, where Arrow's takes a call a row."""
    data = texts.buffers()[2]
    held = data.to_pybytes() if data else b""
    return b"|" in held and b"<|" in held  # one character is found ten times as fast as two


def _whole(texts: Any) -> _Answers:
    every = np.arange(len(texts))
    none = np.zeros(len(texts), bool)
    return _Answers(~none, texts, every, every, none)


def _split(texts: Any) -> _Answers:
    """`<think>A</think>B`, blanks around each part, gives A and B; a text without tags gives B.

    Split at `think>`, the first has the parts `<`, `A</` and B. One split finds both tags and any
    other one.
    """
    parts = pc.split_pattern(pc.utf8_trim_whitespace(texts), "think>")
    first = parts.offsets.to_numpy()[:-1].astype(np.int64)
    count = pc.fill_null(pc.list_value_length(parts), 0).to_numpy()
    ends = _offsets(parts.values)
    data = np.frombuffer(parts.values.buffers()[2] or b"", np.uint8)

    three = np.flatnonzero(count == 3)
    one, two = first[three], first[three] + 1  # the parts `<` and `A</`
    open_ends, close_ends = ends[one + 1], ends[two + 1]
    tagged = (open_ends - ends[one] == 1) & (close_ends - ends[two] >= 2)
    # a part that is too short looks at its neighbour's bytes, and is not tagged anyway
    tagged &= data[open_ends - 1] == ord("<")
    tagged &= (data[close_ends - 2] == ord("<")) & (data[close_ends - 1] == ord("/"))
    opened = np.zeros(len(texts), bool)
    opened[three] = tagged

    # the same bytes with each `</` cut off: part i is piece 2i, what was cut off is piece 2i + 1
    cuts = np.empty(2 * len(ends) - 1, np.int32)
    cuts[::2] = ends
    cuts[1::2] = ends[1:]
    cuts[2 * two[tagged] + 1] -= 2
    pieces = pa.StringArray.from_buffers(
        len(cuts) - 1, pa.py_buffer(cuts), parts.values.buffers()[2]
    )
    pieces = pc.utf8_trim_whitespace(pieces)
    content = 2 * (first + 2 * opened)
    fit = opened | (count == 1)
    ends = _offsets(pieces)
    fit[fit] = ends[content[fit] + 1] > ends[content[fit]]
    return _Answers(fit, pieces, content, 2 * (first + opened), opened)


def _offsets(texts: Any) -> Any:
    """Where each text begins in the array's bytes, and where the last one ends."""
    if not len(texts):
        return np.zeros(1, np.int32)
    return np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]


def _equal(one: _Answers, other: _Answers, rows: Any) -> Any:
    """Where two answers have the same content; forms.py looks at their thinking too."""
    same = pc.equal(one.texts.take(one.content[rows]), other.texts.take(other.content[rows]))
    return same.to_numpy(zero_copy_only=False)


def _message(answers: _Answers, rows: Any) -> Any:
    """Assistant messages alone."""
    given = answers.opened[rows] & ~answers.empty_thinking(rows)
    return pa.StructArray.from_arrays(
        [
            pa.array(["assistant"]).take(np.zeros(len(rows), np.int64)),
            answers.texts.take(answers.content[rows]),
            answers.texts.take(pa.array(answers.thinking[rows], mask=~given)),
        ],
        fields=list(MESSAGE),
    )


def _messages(system: str, asked: Any, answers: _Answers, rows: Any) -> Any:
    """Lists of system message (where there is one), user message and assistant message."""
    roles = ["system", "user", "assistant"] if system else ["user", "assistant"]
    width, count = len(roles), len(rows)
    pool = pa.concat_arrays([asked, answers.texts, pa.array([system])])
    content = np.empty((count, width), np.int64)
    content[:, 0] = len(pool) - 1
    content[:, -2] = rows
    content[:, -1] = len(asked) + answers.content[rows]
    thinking = np.zeros((count, width), np.int64)
    thinking[:, -1] = answers.thinking[rows]
    given = np.zeros((count, width), bool)
    given[:, -1] = answers.opened[rows] & ~answers.empty_thinking(rows)
    messages = pa.StructArray.from_arrays(
        [
            pa.array(roles).take(pa.array(np.tile(np.arange(width), count))),
            pool.take(pa.array(content.ravel())),
            answers.texts.take(pa.array(thinking.ravel(), mask=~given.ravel())),
        ],
        fields=list(MESSAGE),
    )
    ends = np.arange(count + 1, dtype=np.int32) * width
    return pa.ListArray.from_arrays(pa.array(ends), messages, type=ROWS.field("messages").type)

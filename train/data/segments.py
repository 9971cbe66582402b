"""Token ids and labels of Arrow batches of conversations, without rendering each one.

    plain = ByTemplate(tokenizer, {"current_date": "2026-01-01"}, "train.parquet")
    plain.encode(batch, 0)               # 0: how many rows came before this batch
    BySegments(plain).encode(batch, 0)   # the same, and which rows had a new shape

Each shape of conversation is rendered once (train/data/shapes.py). Its constant segments are
encoded then; the others are joined column-wise and encoded together for a whole batch, equal ones
once. Nothing here reads or writes files.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from train.data.shapes import (
    IGNORED,
    Border,
    Constant,
    Ints,
    NotSegmentableError,
    Part,
    Plan,
    Planner,
    Variable,
    row,
)
from train.errors import InputError

Longs = npt.NDArray[np.int64]

FIELDS = ("content", "thinking")
NULL, EMPTY, FULL = range(3)
"""What a message's text may be."""
PLANS = 4096
"""Plans to keep, so that memory stays bounded where every row has another shape."""
LITERAL = r"('[^'\n]+'|\"[^\"\n]+\")"
TESTED = re.compile(rf"{LITERAL}\s+(?:not\s+)?in\s|(?:\.\w+|\|\s*replace)\(\s*{LITERAL}\s*[,)]")
"""Literals that a template's source looks for in texts."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The rows of a batch, one after the other."""

    ids: Ints
    """(tokens,)"""
    labels: Ints
    """(tokens,), IGNORED where not learned."""
    lengths: Longs
    """(rows,)"""

    def row(self, number: int) -> tuple[list[int], list[int]]:
        """Ids and labels of one row."""
        start = int(self.lengths[:number].sum())
        span = slice(start, start + int(self.lengths[number]))
        return self.ids[span].tolist(), self.labels[span].tolist()


class ByTemplate:
    """Encodes row by row; `source` names the rows in the InputError of one that is refused."""

    def __init__(self, tokenizer: Any, template_kwargs: Mapping[str, Any], source: str) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = template_kwargs
        self._source = source

    def row(self, batch: Any, number: int, before: int) -> tuple[list[int], list[int]]:
        """Ids and labels of one row of `batch`, which `before` rows came before."""
        messages = [
            {key: message[key] for key in ("role", *FIELDS) if message.get(key) is not None}
            for message in batch.column("messages")[number].as_py()
        ]
        try:
            return row(self.tokenizer, messages, self.template_kwargs)
        except InputError as error:
            raise InputError(f"{self._source}, row {before + number + 1}: {error}") from None

    def encode(self, batch: Any, before: int) -> Encoded:
        """All rows of `batch`."""
        rows = [self.row(batch, number, before) for number in range(len(batch))]
        return Encoded(
            ids=np.fromiter(chain.from_iterable(ids for ids, _ in rows), np.int32),
            labels=np.fromiter(chain.from_iterable(labels for _, labels in rows), np.int32),
            lengths=np.array([len(ids) for ids, _ in rows], np.int64),
        )


class BySegments:
    """Encodes by plans, one per shape; raises NotSegmentableError where that cannot be right."""

    def __init__(self, plain: ByTemplate) -> None:
        self._plain = plain
        self._planner = Planner(plain.tokenizer, plain.template_kwargs)
        self._plans: dict[tuple[int, ...], Plan | None] = {}
        self._compared: set[tuple[int, ...]] = set()
        self._roles: dict[str, int] = {}
        found = TESTED.findall(plain.tokenizer.get_chat_template())
        literals = {ast.literal_eval(literal) for pair in found for literal in pair if literal}
        # identifiers name a message's fields, as in `"thinking" in message`
        self._tested = [text for text in literals if not text.isidentifier()]

    def encode(self, batch: Any, before: int) -> tuple[Encoded, list[int]]:
        """All rows of `batch`, and the numbers of those that are the first of their shape."""
        texts = _Texts(batch, self._roles)
        groups, fresh, odd = self._group(texts)
        alone = {number: self._plain.row(batch, number, before) for number in odd}
        pools = tuple(_Pool(self._planner.backend, places=places) for places in (False, True))
        parts = [_Rows(plan, np.array(rows), texts, pools) for plan, rows in groups]
        for pool in pools:
            pool.encode()
        lengths = np.zeros(len(batch), np.int64)
        for number, (ids, _) in alone.items():
            lengths[number] = len(ids)
        for part in parts:
            lengths[part.rows] = part.length(len(part.plan.segments))
        begins = np.cumsum(lengths) - lengths
        encoded = Encoded(
            ids=np.empty(lengths.sum(), np.int32),
            labels=np.full(lengths.sum(), IGNORED, np.int32),
            lengths=lengths,
        )
        for number, (ids, labels) in alone.items():
            span = slice(begins[number], begins[number] + lengths[number])
            encoded.ids[span], encoded.labels[span] = ids, labels
        for part in parts:
            # a token across the border is a new shape too: the template must say what is learned
            fresh += part.fill(encoded, begins[part.rows])
        return encoded, fresh

    def _group(self, texts: "_Texts") -> tuple[list[tuple[Plan, list[int]]], list[int], list[int]]:
        """Rows by plan; the first of each new shape; those that must go through the template."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for number, shape in enumerate(texts.shapes()):
            shapes.setdefault(shape, []).append(number)
        groups, fresh, odd = [], [], []
        for shape, rows in shapes.items():
            if len(self._plans) >= PLANS:
                self._plans.clear()
                self._compared.clear()
            if shape not in self._plans:
                self._plans[shape] = self._plan(shape)
            plan = self._plans[shape]
            if plan is None:
                odd += rows
                continue
            strange = texts.holding(self._tested, trimmed=plan.trims)
            plain = [number for number in rows if number not in strange]
            odd += [number for number in rows if number in strange]
            if plain:
                groups.append((plan, plain))
                if shape not in self._compared:
                    self._compared.add(shape)
                    fresh.append(plain[0])
        return groups, fresh, odd

    def _plan(self, shape: tuple[int, ...]) -> Plan | None:
        """The shape's plan; None where the template refuses it, which its rows then tell."""
        from jinja2 import TemplateError

        names = list(self._roles)
        messages = []
        for number, code in enumerate(shape):
            role, states = divmod(code, 9)
            message = {"role": names[role]}
            for offset, (name, state) in enumerate(zip(FIELDS, divmod(states, 3), strict=True)):
                if state != NULL:
                    slot = f"\ue200{2 * number + offset}\ue201"
                    message[name] = slot if state == FULL else ""
            messages.append(message)
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            return None
        try:
            return self._planner.plan(messages)
        except TemplateError:
            return None


class _Texts:
    """The texts of a batch by column: content and thinking of every message, row after row."""

    def __init__(self, batch: Any, roles: dict[str, int]) -> None:
        column = batch.column("messages")
        self.begins = column.offsets.to_numpy().astype(np.int64)
        self.begins -= self.begins[0]
        flat = column.flatten()
        fields = dict(zip((f.name for f in flat.type), flat.flatten(), strict=True))
        encoded = fields["role"].dictionary_encode()
        for name in encoded.dictionary.to_pylist():
            roles.setdefault(name, len(roles))
        numbers = np.array([roles[name] for name in encoded.dictionary.to_pylist()], np.int64)
        self._codes = 9 * numbers[encoded.indices.to_numpy()]
        self._columns = []
        for name, weight in zip(FIELDS, (3, 1), strict=True):
            texts = fields.get(name, pa.nulls(len(flat), pa.string())).cast(pa.string())
            states = pc.if_else(pc.greater(pc.binary_length(texts), 0), FULL, EMPTY).fill_null(NULL)
            self._codes += weight * states.to_numpy()
            self._columns.append(texts)
        self._strange: dict[bool, set[int]] = {}

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """Of each row, a number per message: its role and which texts it has."""
        codes = self._codes.tolist()
        for begin, end in zip(self.begins[:-1].tolist(), self.begins[1:].tolist(), strict=True):
            yield tuple(codes[begin:end])

    def _of(self, number: int, rows: Longs) -> Any:
        """(rows,) Arrow strings: the text of that number in each row."""
        return self._columns[number % 2].take(pa.array(self.begins[rows] + number // 2))

    def join(self, parts: Sequence[Part], rows: Longs) -> Any:
        """(rows,) Arrow strings: literal text and texts of each row, one behind the other."""
        return pc.binary_join_element_wise(
            *(self._of(part, rows) if isinstance(part, int) else part for part in parts), ""
        )

    def characters(self, parts: Sequence[Part], rows: Longs) -> Longs:
        """(rows,) how long they are joined."""
        total = np.zeros(len(rows), np.int64)
        for part in parts:
            length = pc.utf8_length(self._of(part, rows)) if isinstance(part, int) else len(part)
            total += np.asarray(length)
        return total

    def holding(self, literals: list[str], *, trimmed: bool) -> set[int]:
        """Rows with one of `literals` in a text or, where `trimmed`, white space around one."""
        if trimmed not in self._strange:
            found = np.zeros(len(self._codes), bool)
            for texts in self._columns:
                tests = [pc.match_substring(texts, literal) for literal in literals]
                if trimmed:
                    tests.append(pc.not_equal(pc.utf8_trim_whitespace(texts), texts))
                for test in tests:
                    found |= test.fill_null(False).to_numpy(zero_copy_only=False)
            rows = np.searchsorted(self.begins, np.flatnonzero(found), side="right") - 1
            self._strange[trimmed] = set(rows.tolist())
        return self._strange[trimmed]


class _Pool:
    """Texts to encode together, each of them once; `places`: with the characters of each token."""

    def __init__(self, backend: Any, *, places: bool) -> None:
        self._encode = backend.encode_batch if places else backend.encode_batch_fast
        self._texts: list[Any] = []
        self._count = 0

    def add(self, texts: Any) -> slice:
        """Take Arrow strings; returns where they stand in `which`."""
        self._texts.append(texts)
        self._count += len(texts)
        return slice(self._count - len(texts), self._count)

    def encode(self) -> None:
        """Encode what was added."""
        texts = pa.chunked_array(self._texts, pa.string()).combine_chunks().dictionary_encode()
        self.which: Longs = texts.indices.to_numpy().astype(np.int64)
        """(texts,) number of its encoding."""
        self.encodings = self._encode(texts.dictionary.to_pylist(), add_special_tokens=False)
        self.lengths: Longs = np.fromiter(map(len, self.encodings), np.int64)
        self.begins: Longs = np.cumsum(self.lengths) - self.lengths
        """(encodings,) where each begins in `ids`."""
        self.ids: Ints = np.fromiter(chain.from_iterable(e.ids for e in self.encodings), np.int32)


class _Rows:
    """Rows of a batch that share a plan."""

    def __init__(self, plan: Plan, rows: Longs, texts: _Texts, pools: tuple[_Pool, ...]) -> None:
        self.plan = plan
        self.rows = rows
        self._texts = texts
        self._pieces: dict[int, tuple[_Pool, slice]] = {}
        """By segment."""
        for number, segment in enumerate(plan.segments):
            if isinstance(segment, Variable):
                borders = [plan.start, *([plan.end] if plan.end else [])]
                inside = any(b.segment == number and b.parts for b in borders)
                parts = (segment.left, *segment.parts, segment.right)
                pool = pools[inside]
                self._pieces[number] = pool, pool.add(texts.join(parts, rows))

    def length(self, until: int) -> Longs:
        """(rows,) tokens of the first `until` segments."""
        return sum(
            (self._segment_length(number) for number in range(until)),
            start=np.zeros(len(self.rows), np.int64),
        )

    def fill(self, encoded: Encoded, begins: Longs) -> list[int]:
        """Write ids and labels; returns rows with a token that the prompt and the answer share."""
        place = begins.copy()
        for number, segment in enumerate(self.plan.segments):
            length = self._segment_length(number)
            if isinstance(segment, Constant):
                encoded.ids[place[:, None] + np.arange(len(segment.ids))] = segment.ids
            else:
                pool, where = self._pieces[number]
                begin = pool.begins[pool.which[where]] + bool(segment.left)
                encoded.ids[_ranges(place, length)] = pool.ids[_ranges(begin, length)]
            place += length
        start, shared = self._border(self.plan.start)
        end = self.length(len(self.plan.segments))
        if self.plan.end is not None:
            end, _ = self._border(self.plan.end, after=True)
        learned = _ranges(begins + start, np.maximum(end - start, 0))
        encoded.labels[learned] = encoded.ids[learned]
        return shared

    def _segment_length(self, number: int) -> Longs:
        segment = self.plan.segments[number]
        if isinstance(segment, Constant):
            return np.full(len(self.rows), len(segment.ids))
        pool, where = self._pieces[number]
        return pool.lengths[pool.which[where]] - bool(segment.left) - bool(segment.right)

    def _border(self, border: Border, *, after: bool = False) -> tuple[Longs, list[int]]:
        """(rows,) tokens before `border`, and the rows where it falls inside a token."""
        tokens = self.length(border.segment) + border.token
        segment = self.plan.segments[border.segment]
        if isinstance(segment, Constant) or not border.parts:
            return tokens, []
        pool, where = self._pieces[border.segment]
        shared = []
        characters = self._texts.characters((segment.left, *border.parts), self.rows).tolist()
        for index, (which, place) in enumerate(zip(pool.which[where], characters, strict=True)):
            token = pool.encodings[which].char_to_token(place - after)
            if token is None:
                raise NotSegmentableError("the answer begins with text that has no token")
            if pool.encodings[which].token_to_chars(token)[0] < place - after:
                shared.append(int(self.rows[index]))
            tokens[index] += max(token + after - bool(segment.left), 0)
        return tokens, shared


def _ranges(begins: Longs, lengths: Longs) -> Longs:
    """Every number of the ranges, one after the other: [3, 10], [2, 3] -> [3, 4, 10, 11, 12]."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths - begins, lengths)

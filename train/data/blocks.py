"""Files of rows, read a few thousand rows at a time: JSON Lines, JSON arrays, Parquet and CSV.

    for block in blocks(Path("rows.jsonl")):
        columns = block.columns(["question", "answer"])   # text columns, or None: go row by row
        for where, row in block.rows(): ...               # every row as a dict, or why it is none

A block holds a few MiB whatever the size of the file, so memory does not grow with it. `columns`
and `rows` give the same values: where they could not, `columns` is None.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from train.data.arrays import elements
from train.data.forms import FORMS, BadRow
from train.errors import InputError

Row = dict[str, Any] | BadRow
"""A row, or why what stands there is none."""
Columns = dict[str, Any]
"""Column name → pa.StringArray of valid UTF-8, as long as the block."""

BLOCK_BYTES = 4 << 20
BLOCK_ROWS = 8192
LONGEST_ROW = 64 << 20
"""Bytes of one row; without a limit, a file that is no JSON Lines would be read as one row."""
DEEPEST = 500
"""Nesting; above it Python's parser decides, as Arrow's overflows the stack at some thousands."""

BROKEN_BYTE = re.compile("[\udc80-\udcff]")

csv.field_size_limit(LONGEST_ROW)


class Block(Protocol):
    """Rows that follow each other in one file."""

    file: Path

    def columns(self, names: Iterable[str]) -> Columns | None:
        """The named text columns (null where absent), or None where a value is no plain text."""

    def unused(self, used: frozenset[str]) -> Counter[str]:
        """How many rows have a value in each column outside of `used`, asked after the rows."""

    def row(self, i: int) -> tuple[str, Row]:
        """Where the `i`-th row stands, and what it is."""

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Every row that is not blank."""


def blocks(file: Path) -> Iterator[Block]:
    """The rows of `file` in order; InputError where it cannot be read as what its name says."""
    kind = [s.lower() for s in file.suffixes if s.lower() != ".gz"][-1:]
    try:
        if kind == [".parquet"]:
            yield from _parquet(file)
            return
        with _open(file) as stream:
            if kind == [".csv"]:
                yield from _csv(file, stream)
            elif kind == [".json"] and _is_array(stream):
                yield from _array(file, stream)
            else:
                yield from _lines(file, stream)
    except FileNotFoundError:
        raise InputError(f"data file {file} does not exist: check data.train.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"data file {file} is not a whole gzip file ({error}): compress it anew."
        ) from None
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())
        raise InputError(f"data file {file} is not Parquet ({reason}).") from None
    except OSError as error:
        raise InputError(f"data file {file} cannot be read: {error.strerror or error}.") from None


def _open(file: Path) -> IO[bytes]:
    if file.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(file), BLOCK_BYTES)
    return file.open("rb", buffering=1 << 20)


def _parse(line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow("not UTF-8", f"not UTF-8 at byte {error.start}; save the file as UTF-8")
    except RecursionError:
        return BadRow("not JSON", "not JSON that can be read (nested too deeply)")
    except ValueError as error:
        return BadRow("not JSON", f"not JSON ({error})")
    return _object(row)


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else BadRow("not an object", "not a JSON object")


# --- JSON Lines -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Lines:
    """Whole lines of a JSON Lines file; `first` is the number of the first one, from 1."""

    file: Path
    first: int
    raw: bytes
    starts: Any = None
    table: Any = None
    keys: Counter[str] = field(default_factory=Counter)

    def columns(self, names: Iterable[str]) -> Columns | None:
        self.starts = _regular_lines(self.raw)
        if self.starts is None or _deeper_than(DEEPEST, self.raw, self.starts):
            return None
        schema = pa.schema([(name, pa.string()) for name in names])
        try:
            pa.StringArray.from_buffers(
                1, pa.py_buffer(np.array([0, len(self.raw)], np.int32)), pa.py_buffer(self.raw)
            ).validate(full=True)
            # never on Arrow's own threads: the blocks are what runs side by side
            table = pj.read_json(
                pa.BufferReader(self.raw),
                pj.ReadOptions(use_threads=False, block_size=len(self.raw)),
                pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
            )
        except pa.ArrowInvalid:
            return None
        if table.num_rows != len(self.starts):
            return None
        self.table = table
        return {name: pa.concat_arrays(table[name].chunks) for name in schema.names}

    def unused(self, used: frozenset[str]) -> Counter[str]:
        if self.table is None:
            return Counter({key: count for key, count in self.keys.items() if key not in used})
        others = set(self.table.column_names) - used
        return Counter({n: len(self.table) - self.table[n].null_count for n in others})

    def row(self, i: int) -> tuple[str, Row]:
        end = self.starts[i + 1] if i + 1 < len(self.starts) else len(self.raw)
        return f"{self.file}:{self.first + i}", _parse(self.raw[self.starts[i] : end])

    def rows(self) -> Iterator[tuple[str, Row]]:
        self.keys.clear()
        for number, line in enumerate(self.raw.split(b"\n"), start=self.first):
            if line := line.strip():
                row = _parse(line)
                if isinstance(row, dict):
                    self.keys.update(key for key, value in row.items() if value is not None)
                yield f"{self.file}:{number}", row


def _lines(file: Path, stream: IO[bytes]) -> Iterator[Lines]:
    number = 1
    while raw := stream.read(BLOCK_BYTES):
        raw += stream.readline(LONGEST_ROW)
        if not raw.endswith(b"\n"):
            if stream.read(1):
                long = number + _count(raw, "\n")
                raise InputError(
                    f"{file}:{long}: the line is longer than {LONGEST_ROW >> 20} MiB; JSON Lines "
                    "has one JSON object a line."
                )
            raw += b"\n"
        # Azure OpenAI wants a byte order mark, so files made for it begin with one
        yield Lines(file, number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw)
        number += _count(raw, "\n")


def _count(raw: bytes, character: str) -> int:
    """What bytes.count does, in a third of its time and without holding up the other threads."""
    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == ord(character)))


def _regular_lines(raw: bytes) -> Any:
    """Where each line begins, if every line begins with `{` and ends with `}`; else None.

    `}`, line end, `{` cannot stand within one JSON value, so if as many values as lines are found
    in `raw`, each line holds exactly one: Arrow's parser alone would not see the lines.
    """
    if b"\0" in raw:  # where Arrow's parser ends
        return None
    data = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    last = data[ends - 1]
    if (returns := last == ord("\r")).any():
        last = np.where(returns, data[ends - 2], last)
    regular = (data[starts] == ord("{")).all() and (last == ord("}")).all()
    return starts if regular else None


def _deeper_than(limit: int, raw: bytes, starts: Any) -> bool:
    """Whether brackets in a line may be nested deeper; those within texts are counted along."""
    if _count(raw, "[") + _count(raw, "{") - len(starts) < limit:
        return False
    data = np.frombuffer(raw, np.uint8)
    folded = data & 0xDF  # maps { to [ and } to ]
    at = np.flatnonzero((folded == ord("[")) | (folded == ord("]")))
    depth = np.cumsum(np.where(folded[at] == ord("["), 1, -1))
    line = np.searchsorted(starts, at, side="right") - 1
    first = np.searchsorted(line, np.arange(len(starts)))  # bracket that opens each line
    return bool((depth - depth[first][line]).max() >= limit)


# --- rows that Python has parsed ------------------------------------------------------------------


@dataclass(slots=True)
class Parsed:
    """Rows and where each one stands."""

    file: Path
    places: Sequence[str]
    parsed: Sequence[Row]

    def columns(self, names: Iterable[str]) -> Columns | None:
        rows = [row if isinstance(row, dict) else {} for row in self.parsed]
        values = {name: [row.get(name) for row in rows] for name in names}
        try:
            return {name: pa.array(column, pa.string()) for name, column in values.items()}
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
            return None

    def unused(self, used: frozenset[str]) -> Counter[str]:
        rows = (row for row in self.parsed if isinstance(row, dict))
        return Counter(k for row in rows for k, v in row.items() if k not in used and v is not None)

    def row(self, i: int) -> tuple[str, Row]:
        return f"{self.file}{self.places[i]}", self.parsed[i]

    def rows(self) -> Iterator[tuple[str, Row]]:
        return (self.row(i) for i in range(len(self.parsed)))


def _batched(file: Path, rows: Iterator[tuple[str, Row, int]]) -> Iterator[Parsed]:
    """Blocks of (place, row, characters), each of bounded size."""
    batch: list[tuple[str, Row]] = []
    size = 0
    for place, row, length in rows:
        batch.append((place, row))
        size += length
        if size >= BLOCK_BYTES or len(batch) == BLOCK_ROWS:
            yield Parsed(file, *zip(*batch, strict=True))
            batch, size = [], 0
    if batch:
        yield Parsed(file, *zip(*batch, strict=True))


def _is_array(stream: IO[bytes]) -> bool:
    start = stream.peek(64)  # type: ignore[attr-defined]
    return bool(start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["))


def _array(file: Path, stream: IO[bytes]) -> Iterator[Parsed]:
    with io.TextIOWrapper(stream, "utf-8-sig") as text:
        found = enumerate(elements(file, text, LONGEST_ROW), start=1)
        yield from _batched(file, ((f": row {n}", _object(row), size) for n, (row, size) in found))


def _csv(file: Path, stream: IO[bytes]) -> Iterator[Parsed]:
    # what is not UTF-8 comes as lone surrogates, so that one such row does not end the reading
    with io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise InputError(f"{file}:1: the header is not CSV ({error}).") from None
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise InputError(f"{file}:1: the header has the column {twice!r} twice.")
        yield from _batched(file, _records(reader, header))


def _records(reader: Any, header: Sequence[str]) -> Iterator[tuple[str, Row, int]]:
    while True:
        place = f":{reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield place, BadRow("not CSV", f"not CSV ({error})"), 0
            continue
        if fields is None:
            return
        if not fields:  # a blank line
            continue
        row: Row = dict(zip(header, fields, strict=False))
        if len(fields) != len(header):
            sentence = f"has {len(fields)} fields, the header has {len(header)}"
            row = BadRow("wrong number of fields", sentence)
        elif any(not f.isascii() and BROKEN_BYTE.search(f) for f in fields):
            row = BadRow("not UTF-8", "not UTF-8; save the file as UTF-8")
        yield place, row, sum(map(len, fields))


# --- Parquet --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Slice:
    """Rows of a Parquet file; `first` is the number of the first one, from 1."""

    file: Path
    first: int
    table: Any
    unread: frozenset[str]
    """Columns that no form uses, so that they are not read."""

    def columns(self, names: Iterable[str]) -> Columns | None:
        found = {}
        for name in names:
            if name not in self.table.column_names:
                found[name] = pa.nulls(len(self.table), pa.string())
                continue
            column = self.table[name]
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                return None
            found[name] = pa.concat_arrays(column.cast(pa.string()).chunks)
            try:
                found[name].validate(full=True)
            except pa.ArrowInvalid:
                return None
        return found

    def unused(self, used: frozenset[str]) -> Counter[str]:
        read = {
            name: len(self.table) - self.table[name].null_count
            for name in self.table.column_names
            if name not in used
        }
        return Counter({**read, **dict.fromkeys(self.unread, len(self.table))})

    def row(self, i: int) -> tuple[str, Row]:
        where = f"{self.file}: row {self.first + i}"
        try:
            return where, self.table.slice(i, 1).to_pylist()[0]
        except UnicodeDecodeError:
            return where, BadRow("not UTF-8", "not UTF-8; write the file anew from UTF-8 text")

    def rows(self) -> Iterator[tuple[str, Row]]:
        return (self.row(i) for i in range(len(self.table)))


def _parquet(file: Path) -> Iterator[Slice]:
    used = frozenset().union(*(form.columns for form in FORMS.values()))
    # a small buffer, else every column of a row group is held at once, and groups have any size
    with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as parquet:
        names = parquet.schema_arrow.names
        read = [name for name in names if name in used] or names
        groups = (parquet.metadata.row_group(i) for i in range(parquet.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        rows = BLOCK_BYTES * parquet.metadata.num_rows // max(size, 1)
        first = 1
        for batch in parquet.iter_batches(max(1, min(rows, BLOCK_ROWS)), columns=read):
            table = pa.Table.from_batches([batch])
            yield Slice(file, first, table, frozenset(names) - frozenset(read))
            first += len(table)

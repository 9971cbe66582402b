"""Rows in the form that the user has → one Parquet of training rows.

    convert([Path("data/japanese_reasoning.jsonl")], DataConfig(...), Path("data_out"), "train")
    for messages in read(Path("data_out/train.parquet")): ...

What a row becomes is in train/data/forms.py. Files are read in blocks of a few MiB; forms made of
plain text columns are converted a block at a time (train/data/columns.py), the rest, and every row
that is not plainly well formed, row by row. Blocks are worked on side by side and written in order,
so memory does not grow with the files. It does not tokenise, shuffle, deduplicate or split off a
validation set.
"""

import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from train.data import columns as columnar
from train.data.blocks import Block, Row, blocks
from train.data.forms import FORMS, BadRow, Message, recognise, training_rows
from train.errors import InputError
from train.recipe import DataConfig

log = logging.getLogger(__name__)

NAMED_BAD_ROWS = 20
"""Bad rows that are named one by one; the rest are only counted."""
HEAD_ROWS = 100
"""Rows beside the Parquet as JSON Lines, for people to look at."""
PROGRESS_SECONDS = 10
WORKERS = min(8, os.cpu_count() or 1)
"""Blocks at a time; Python's own part of the work does not gain from more."""


@dataclass(slots=True)
class Report:
    """What a conversion read, wrote, passed over and noticed."""

    form: str = ""
    read: int = 0
    written: int = 0
    bad: int = 0
    bad_rows: list[str] = field(default_factory=list)
    defects: Counter[str] = field(default_factory=Counter)
    """Bad rows by kind."""
    notices: Counter[str] = field(default_factory=Counter)

    def add_bad(self, where: str, error: BadRow) -> None:
        self.bad += 1
        self.defects[error.kind] += 1
        if len(self.bad_rows) < NAMED_BAD_ROWS:
            self.bad_rows.append(f"{where}: {error}")

    def add(self, later: "Report") -> None:
        """Take in the report on the rows that follow."""
        self.form = later.form
        self.read += later.read
        self.written += later.written
        self.bad += later.bad
        self.bad_rows += later.bad_rows[: NAMED_BAD_ROWS - len(self.bad_rows)]
        self.defects.update(later.defects)
        self.notices.update(later.notices)

    def lines(self) -> Iterator[str]:
        """The report for people: bad rows first, then notices, then the totals."""
        yield from self.bad_rows
        if self.bad > len(self.bad_rows):
            yield f"… and {self.bad - len(self.bad_rows)} more bad rows"
        for notice, count in sorted(self.notices.items()):
            yield f"{notice} ({count} {'time' if count == 1 else 'times'})"
        yield (
            f"{self.form}: {self.read} rows read, {self.written} training rows written, "
            f"{self.bad} bad"
        )


def convert(
    files: Sequence[Path], config: DataConfig, folder: Path, name: str, *, pairs: bool = False
) -> Report:
    """Write `folder/name.parquet` and the first rows as `folder/name.head.jsonl` from `files`.

    A row is {messages: list of {role, content, thinking}}; with `pairs` also {rejected: {role,
    content, thinking}}, and only preference rows are taken. Raises InputError when a file is
    missing or empty, when the form is not recognised, or when more than `config.max_bad_rows` rows
    are bad; then nothing is left under the final names.
    """
    report = Report()
    folder.mkdir(parents=True, exist_ok=True)
    parquet, head = folder / f"{name}.parquet", folder / f"{name}.head.jsonl"
    parquet_part, head_part = (Path(f"{path}.part") for path in (parquet, head))
    try:
        with (
            pq.ParquetWriter(
                parquet_part, columnar.PAIRS if pairs else columnar.ROWS, **columnar.WRITTEN
            ) as writer,
            head_part.open("w", encoding="utf-8") as first_rows,
        ):
            for table in _tables(files, config, report, pairs):
                if (missing := HEAD_ROWS - (report.written - len(table))) > 0:
                    rows = table.slice(0, missing).to_pylist()
                    first_rows.writelines(
                        json.dumps(_without_nulls(row), ensure_ascii=False) + "\n" for row in rows
                    )
                writer.write_table(table)
        if report.bad > config.max_bad_rows:
            raise InputError(
                "\n".join([*report.bad_rows, ""])
                + f"{report.bad} of {report.read} rows are bad, data.max_bad_rows allows "
                f"{config.max_bad_rows}: mend the rows named above, or raise data.max_bad_rows."
            )
        if not report.written:
            names = ", ".join(map(str, files[:3])) + (" …" if len(files) > 3 else "")
            raise InputError(f"{names}: no row to train on; give at least one row.")
        os.replace(parquet_part, parquet)
        os.replace(head_part, head)
    finally:
        parquet_part.unlink(missing_ok=True)
        head_part.unlink(missing_ok=True)
    return report


def read(parquet: Path) -> Iterator[list[Message]]:
    """The rows' messages, a batch at a time, without the null fields that Parquet adds."""
    for row in _rows(parquet, ["messages"]):
        yield row["messages"]


def read_pairs(parquet: Path) -> Iterator[dict[str, Any]]:
    """Each pair as {"messages": […, chosen], "rejected": message}, read in the same way."""
    yield from _rows(parquet, ["messages", "rejected"])


def _rows(parquet: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(parquet, buffer_size=1 << 20, pre_buffer=False) as file:
        for batch in file.iter_batches(1024, columns=columns):
            yield from map(_without_nulls, batch.to_pylist())


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _tables(
    files: Sequence[Path], config: DataConfig, report: Report, pairs: bool
) -> Iterator[Any]:
    """The training rows in order, a table a block; `report` grows with each."""
    form = "preference" if pairs and config.form != "auto" else str(config.form)
    waiting: deque[Future[tuple[Any, Report]]] = deque()
    started = told = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as workers:

        def finished() -> Any:
            table, of_block = waiting.popleft().result()
            report.add(of_block)
            return table

        for file in files:
            for block in blocks(file):
                if form == "auto":
                    form = _recognised(block, pairs)
                waiting.append(workers.submit(_convert_block, block, form, config, pairs))
                if len(waiting) > WORKERS:
                    yield finished()
                if (now := time.monotonic()) - told >= PROGRESS_SECONDS:
                    told, pace = now, report.read / (now - started)
                    log.info("data: %s rows read, %s rows/s", f"{report.read:,}", f"{pace:,.0f}")
        while waiting:
            yield finished()


def _recognised(block: Block, pairs: bool) -> str:
    """The form of the first row that is one; `auto` where the block has none."""
    for where, row in block.rows():
        if isinstance(row, dict):
            return recognise(row, where, pairs=pairs)
    return "auto"


def _convert_block(block: Block, form: str, config: DataConfig, pairs: bool) -> tuple[Any, Report]:
    """The training rows of a block, in order, and the report on it."""
    report = Report(form=form)

    def learn(where: str, row: Row) -> list[dict[str, Any]]:
        try:
            if isinstance(row, BadRow):
                raise row
            return training_rows(row, form, config, report.notices, pairs=pairs)
        except BadRow as error:
            report.add_bad(where, error)
            return []

    schema = columnar.PAIRS if pairs else columnar.ROWS
    names = columnar.TEXTS.get(form)
    texts = block.columns(names) if names else None
    if names is None or texts is None:
        rows = []
        for where, row in block.rows():
            report.read += 1
            rows += learn(where, row)
        table = pa.Table.from_pylist(rows, schema=schema)
    else:
        made = columnar.convert(texts, form, config, pairs=pairs)
        report.notices.update(made.notices)
        report.read = len(texts[names[0]])
        odd = np.setdiff1d(np.arange(report.read), made.rows, assume_unique=True)
        learned = [(i, row) for i in odd for row in learn(*block.row(int(i)))]
        table = made.table
        if learned:
            at, rows = map(list, zip(*learned, strict=True))
            table = pa.concat_tables([table, pa.Table.from_pylist(rows, schema=schema)])
            table = table.take(np.argsort(np.concatenate([made.rows, at])))
    if form != "auto":
        for key, count in block.unused(FORMS[form].columns).items():
            if count:
                report.notices[f"{block.file}: column {key!r} is not used by the form {form}"] += (
                    count
                )
    report.written = len(table)
    return table, report

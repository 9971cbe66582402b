"""Rows of messages → token ids and labels, once, before training.

    tokenise(Path("train.parquet"), Path("tokens.parquet"), tokenizer,
             {"current_date": "2026-01-01"}, max_length=2048) -> TokenReport

In: Parquet with the column messages, list<struct<role, content, thinking>>; a row ends with the
assistant turn to be learned. Out: Parquet with input_ids and labels, list<int32>, cut at max_length
(the start is kept), and length, int32, the tokens before that. Only the last turn is learned; see
`row` for what of it. A row with nothing left to learn is counted and left out. TRL takes the file
as it is: `datasets.load_dataset("parquet", …)`.

Rows are encoded by segments (train/data/segments.py). A sample, and the first row of every shape,
goes through the chat template as well; if one of them differs, all rows go that way. Memory is
bounded by BATCH_ROWS and BATCH_BYTES, whatever the number of rows.
"""

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from train.data.segments import BySegments, ByTemplate, Encoded
from train.data.shapes import IGNORED, NotSegmentableError, row
from train.errors import InputError

__all__ = ["IGNORED", "TokenReport", "row", "tokenise"]

log = logging.getLogger(__name__)

BATCH_ROWS = 2048
BATCH_BYTES = 4 << 20
"""Of text; its encodings take about thirty times that."""
SAMPLE = 32
"""Rows that are compared with the template."""
PROGRESS_SECONDS = 10.0
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("length", pa.int32()),
    ]
)


@dataclass(slots=True, kw_only=True)
class TokenReport:
    """What was written, and how."""

    rows: int = 0
    """Rows written."""
    tokens: int = 0
    """Tokens written, after cutting."""
    trained_tokens: int = 0
    """Tokens among them that are learned."""
    truncated: int = 0
    """Rows longer than max_length."""
    fully_masked: int = 0
    """Rows left out, as nothing of their answer was left to learn."""
    longest: int = 0
    """Tokens of the longest row, before cutting."""
    path: str = "segments"
    """segments, or template: row by row."""
    reason: str = ""
    """Why that path."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report in words."""
        share = self.trained_tokens / max(self.tokens, 1)
        rate = self.tokens / max(self.seconds, 1e-9)
        lines = [
            f"{self.rows:,} rows, {self.tokens:,} tokens, {share:.1%} of them learned",
            f"tokenised by {self.path} ({self.reason}), {rate:,.0f} tokens/s",
        ]
        if self.truncated:
            lines.append(
                f"{self.truncated:,} rows cut at training.max_length; "
                f"the longest has {self.longest:,} tokens"
            )
        if self.fully_masked:
            lines.append(f"{self.fully_masked:,} rows left out: nothing to learn before the cut")
        return lines


def tokenise(
    parquet: Path,
    out: Path,
    tokenizer: Any,
    template_kwargs: Mapping[str, Any],
    max_length: int,
    *,
    seed: int = 0,
) -> TokenReport:
    """Tokenise `parquet` into `out`, which appears when it is whole.

    `seed` chooses the rows to compare. Raises InputError for a row that the template refuses, and
    where no row has anything to learn.
    """
    started = time.monotonic()
    source = pq.ParquetFile(parquet)
    plain = ByTemplate(tokenizer, template_kwargs, str(parquet))
    part = out.with_name(f"{out.name}.part")
    try:
        try:
            checked = _Checked(plain, source.metadata.num_rows, seed)
            report = _write(source, part, checked.encode, max_length)
            report.reason = f"equal to the chat template on all {checked.compared:,} rows compared"
        except NotSegmentableError as error:
            log.warning("tokens: row by row through the chat template, since %s", error)
            report = _write(source, part, plain.encode, max_length)
            report.path, report.reason = "template", str(error)
        if not report.rows:
            raise InputError(_nothing(parquet, report, max_length))
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _nothing(parquet: Path, report: TokenReport, max_length: int) -> str:
    if not report.fully_masked:
        return f"{parquet} has no rows."
    return (
        f"{parquet}: in none of the {report.fully_masked:,} rows is there anything to learn within "
        f"training.max_length, {max_length} tokens; the longest row has {report.longest}: set "
        f"training.max_length={report.longest}."
    )


class _Checked:
    """Encodes by segments, and compares some rows with the template."""

    def __init__(self, plain: ByTemplate, rows: int, seed: int) -> None:
        self._plain = plain
        self._segments = BySegments(plain)
        draw = random.Random(seed)  # noqa: S311 - a sample, no secret
        self._sample = sorted(draw.sample(range(rows), min(SAMPLE, rows)))
        self.compared = 0

    def encode(self, batch: Any, before: int) -> Encoded:
        """Raises NotSegmentableError at the first row that differs."""
        encoded, fresh = self._segments.encode(batch, before)
        sample = {n - before for n in self._sample if before <= n < before + len(batch)}
        for number in sorted(sample.union(fresh)):
            if encoded.row(number) != self._plain.row(batch, number, before):
                raise NotSegmentableError(
                    f"row {before + number + 1} comes out otherwise by segments"
                )
            self.compared += 1
        return encoded


def _write(
    source: Any, part: Path, encode: Callable[[Any, int], Encoded], max_length: int
) -> TokenReport:
    report = TokenReport()
    total, before = source.metadata.num_rows, 0
    started = said = time.monotonic()
    with pq.ParquetWriter(part, SCHEMA, use_dictionary=False, compression="zstd") as writer:
        for batch in _batches(source):
            writer.write_batch(_cut(encode(batch, before), max_length, report))
            before += len(batch)
            now = time.monotonic()
            if now - said >= PROGRESS_SECONDS:
                said = now
                log.info(
                    "tokens: %s of %s rows, %s rows/s, %.0f s left",
                    f"{before:,}",
                    f"{total:,}",
                    f"{before / (now - started):,.0f}",
                    (total - before) * (now - started) / before,
                )
    return report


def _batches(source: Any) -> Iterator[Any]:
    """The rows in batches of at most BATCH_ROWS, and of about BATCH_BYTES."""
    for batch in source.iter_batches(BATCH_ROWS, columns=["messages"]):
        pieces = min(len(batch), -(-batch.nbytes // BATCH_BYTES))
        for number in range(pieces):
            begin = number * len(batch) // pieces
            yield batch.slice(begin, (number + 1) * len(batch) // pieces - begin)


def _cut(encoded: Encoded, max_length: int, report: TokenReport) -> Any:
    """The batch to write: rows cut at `max_length`, without those that then teach nothing."""
    lengths = encoded.lengths
    begins = np.cumsum(lengths) - lengths
    kept = np.arange(len(encoded.ids)) - np.repeat(begins, lengths) < max_length
    rows = np.repeat(np.arange(len(lengths)), lengths)
    learned = np.bincount(rows[kept & (encoded.labels != IGNORED)], minlength=len(lengths))
    alive = learned > 0
    kept &= alive[rows]
    written = np.minimum(lengths, max_length)[alive]
    report.rows += len(written)
    report.tokens += int(written.sum())
    report.trained_tokens += int(learned.sum())
    report.truncated += int((lengths > max_length)[alive].sum())
    report.fully_masked += int((~alive).sum())
    report.longest = max(report.longest, int(lengths.max(initial=0)))
    offsets = pa.array(np.concatenate([[0], np.cumsum(written)]), pa.int32())
    columns = [
        pa.ListArray.from_arrays(offsets, encoded.ids[kept]),
        pa.ListArray.from_arrays(offsets, encoded.labels[kept]),
        pa.array(lengths[alive], pa.int32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)

"""A split of a dataset and a part of it, as a recipe names them behind `#`.

    hf://owner/name@revision#train_sft[:1%]     the first hundredth of the hub's split
    rows.jsonl#[100:200]                        rows 101 to 200 of a file
    shards/#validation                          the files of that split below a folder

A split is the files that the hub's datasets name so: `train_sft.jsonl`, `train_sft-00000-of-….
parquet`, or all in a folder `train_sft/`. Percentages are of the split's rows, to the nearest row.
A part is written below the cache once, so that all that reads files reads it too.
"""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from train.data.blocks import blocks
from train.errors import InputError

FORM = re.compile(r"(?P<name>[\w.-]*)(?:\[(?P<start>\d+%?)?:(?P<end>\d+%?)?\])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What stands behind `#`."""

    name: str
    """Empty: all files of the place."""
    start: str
    """`10%`, `100`, or empty for the begin."""
    end: str

    def has(self, path: Path) -> bool:
        """Whether the file at `path`, seen from the dataset's folder, belongs to the split."""
        folders, name = path.parts[:-1], path.name
        return not self.name or (
            self.name in folders
            or name.startswith(f"{self.name}-")
            or name.partition(".")[0] == self.name
        )

    def patterns(self, kinds: Sequence[str]) -> list[str]:
        """What to download of a dataset: patterns of names, in which * is also any folder."""
        names = (f"{self.name}{{}}", f"{self.name}-*{{}}", f"{self.name}/*{{}}")
        if not self.name:
            return [f"*{kind}" for kind in kinds]
        return [f"{d}{n.format(kind)}" for d in ("", "*/") for n in names for kind in kinds]


def parse(text: str, spec: str, key: str) -> Split:
    """`text` is what stands behind the `#` of `spec`; InputError where it is no split."""
    match = FORM.fullmatch(text)
    if not text or not match:
        raise InputError(
            f"{key}: {spec} names no split that is known: write #name, #name[:1%], "
            "#name[10%:20%] or #[:100] behind the place."
        )
    return Split(name=match["name"], start=match["start"] or "", end=match["end"] or "")


def part(files: Sequence[Path], split: Split, fingerprint: str, cache: Path, where: str) -> Path:
    """One file below `cache` with the split's part of the rows of `files`, made once.

    `fingerprint` is that of the files. InputError where no row is left.
    """
    tables = all(path.suffix.lower() == ".parquet" for path in files)
    total = sum(map(_count, files))
    start, end = _at(split.start or "0", total), _at(split.end or "100%", total)
    if start >= min(end, total):
        raise InputError(
            f"{where} is no row of the {total:,} that are there; name a larger part of them."
        )
    whole = hashlib.sha256(f"{fingerprint}\0{start}\0{end}".encode()).hexdigest()[:12]
    kind = ".parquet" if tables else ".jsonl"
    made = cache / "splits" / f"{split.name or 'rows'}-{start}-{end}-{whole}{kind}"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        half = made.with_name(f"{made.name}.part-{uuid.uuid4().hex[:8]}")
        try:
            (_write_table if tables else _write_lines)(files, start, end, half)
            os.replace(half, made)
        finally:
            half.unlink(missing_ok=True)
    return made


def _at(place: str, total: int) -> int:
    if place.endswith("%"):
        return min(int(int(place[:-1]) * total / 100 + 0.5), total)
    return min(int(place), total)


def _count(file: Path) -> int:
    if file.suffix.lower() == ".parquet":
        with _table(file) as table:
            return int(table.metadata.num_rows)
    return sum(1 for block in blocks(file) for _ in block.rows())


def _table(file: Path) -> Any:
    try:
        return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())
        raise InputError(f"data file {file} is not Parquet ({reason}).") from None


def _write_table(files: Sequence[Path], start: int, end: int, out: Path) -> None:
    """Rows `start` to `end` of all files together, in their order."""
    with _table(files[0]) as first:
        schema = first.schema_arrow
    with pq.ParquetWriter(out, schema) as writer:
        before = 0
        for file in files:
            with _table(file) as table:
                if before + table.metadata.num_rows > start:
                    at = before
                    for batch in table.iter_batches(1024):
                        low, high = max(start - at, 0), min(end - at, len(batch))
                        if low < high:
                            writer.write_batch(batch.slice(low, high - low))
                        at += len(batch)
                        if at >= end:
                            break
                before += table.metadata.num_rows
            if before >= end:
                return


def _write_lines(files: Sequence[Path], start: int, end: int, out: Path) -> None:
    with out.open("w", encoding="utf-8") as stream:
        for number, (where, row) in enumerate(_rows(files)):
            if number >= end:
                return
            if number < start:
                continue
            if not isinstance(row, dict):
                raise InputError(f"{where}: {row}; a part can be taken of whole rows only.")
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rows(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    for file in files:
        for block in blocks(file):
            yield from block.rows()

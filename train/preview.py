"""The head of a recipe's rows, converted and tokenised as the run would: for `--check`.

preview(recipe, cache, tokenizer) -> Preview     # None for the tokenizer: conversion alone
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from train.data import sources
from train.data.blocks import blocks
from train.data.columns import PAIRS, ROWS
from train.data.forms import BadRow, Notices, recognise, training_rows
from train.errors import InputError
from train.recipe import Recipe

log = logging.getLogger(__name__)

HEAD = 200
"""Rows read of each file."""
FILES = 20
"""Files read of each source."""
COUNTED = 2 << 30
"""Bytes of a text file up to which its lines are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What the head of the training rows says of all of them."""

    rows: int | None
    """Raw rows in all files, about; None where only reading them would tell."""
    tokens: int | None
    """Tokens of one epoch, about; None where the rows or the tokenizer are not known."""


def preview(recipe: Recipe, cache: Path, tokenizer: Any | None) -> Preview:
    """Check the sources that the recipe names, and print a line on each.

    Raises InputError for the first source that is missing, of no known form, or has too many bad
    rows in its head, and for a row that the template refuses.
    """
    found = _source(recipe, "data.train", recipe.data.train, cache, tokenizer)
    if recipe.data.validation:
        _source(recipe, "data.validation", recipe.data.validation, cache, tokenizer)
    return found


def _source(recipe: Recipe, key: str, spec: str, cache: Path, tokenizer: Any | None) -> Preview:
    files = sources.resolve(spec, key, cache)
    made: list[dict[str, Any]] = []
    bad: list[str] = []
    read, forms, notices = 0, Counter[str](), Notices()
    pairs = recipe.method == "dpo"
    for file in files[:FILES]:
        form: str = "" if recipe.data.form == "auto" or pairs else recipe.data.form
        for where, row in _rows(file):
            read += 1
            try:
                if isinstance(row, BadRow):
                    raise row
                form = form or recognise(row, where, pairs=pairs)
                made += training_rows(row, form, recipe.data, notices, pairs=pairs)
            except BadRow as error:
                bad.append(f"{where}: {error}")
        forms[form] += 1
    if len(bad) > recipe.data.max_bad_rows:
        raise InputError(
            f"{key}: {len(bad)} of the first {read} rows are bad, data.max_bad_rows allows "
            f"{recipe.data.max_bad_rows}; the first is {bad[0]}."
        )
    if not made:
        raise InputError(f"{key}: {spec} has no row to learn from; give at least one row.")
    rows, good = _count(files), read - len(bad)
    log.info(
        "%s: %s, %s, %s; of its first %d rows %d are learned from, %d are bad%s",
        key,
        spec,
        f"{len(files)} files" if len(files) > 1 else "one file",
        ", ".join(form for form in forms if form),
        read,
        good,
        len(bad),
        f"; {len(made)} examples, one for each answer" if len(made) != good else "",
    )
    if tokenizer is None:
        return Preview(rows=rows, tokens=None)
    tokens = _tokens(recipe, key, made, pairs, tokenizer)
    return Preview(rows=rows, tokens=None if rows is None else round(tokens / read * rows))


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    every = (pair for block in blocks(file) for pair in block.rows())
    return islice(every, HEAD)


def _tokens(
    recipe: Recipe, key: str, made: list[dict[str, Any]], pairs: bool, tokenizer: Any
) -> int:
    """Tokens of the rows `made`, through the run's own tokenisation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from train.data.tokens import tokenise

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, f"the head of {key}")
        pq.write_table(pa.Table.from_pylist(made, schema=PAIRS if pairs else ROWS), source)
        dated = {"current_date": recipe.data.current_date}
        length = recipe.training.max_length
        report = tokenise(source, Path(folder, "tokens"), tokenizer, dated, length)
    log.info(
        "%s: %d tokens a row, the longest %s; %.0f%% of them are learned; %d rows cut at "
        "training.max_length, %d with nothing left to learn",
        key,
        report.tokens / report.rows,
        f"{report.longest:,}",
        100 * report.trained_tokens / report.tokens,
        report.truncated,
        report.fully_masked,
    )
    return report.tokens * (1 + pairs)


def _count(files: list[Path]) -> int | None:
    """Rows in all files: exact for Parquet, lines for JSON Lines and CSV, else unknown."""
    import pyarrow.parquet as pq

    total = 0
    for file in files:
        kind = file.suffix.lower()
        if kind == ".parquet":
            total += pq.read_metadata(file).num_rows
        elif kind in (".jsonl", ".csv") and file.stat().st_size <= COUNTED:
            with file.open("rb") as stream:
                total += sum(
                    block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")
                )
        else:
            return None
    return total

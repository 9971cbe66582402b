"""Hold rows out of the training set to validate on, where the user gives none.

    hold_out(folder, share=0.05) -> (rows to train on, rows held out)

Rows with the same first user message stay on one side, so neither duplicates nor the turns of one
conversation leak. Which side is decided by a hash of that message: the order of files and rows, or
adding some, does not move the others.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from train.data.columns import WRITTEN
from train.data.hashes import batches, prompts

MOST_ROWS = 2000
"""Rows held out at most: validation is measured again and again while training."""


def hold_out(folder: Path, share: float) -> tuple[int, int]:
    """Split `folder/train.parquet` into itself and `folder/validation.parquet`, replacing both.

    At least one row is held out where share is above 0 and there are two different prompts, at
    most `MOST_ROWS` unless every prompt has more rows than that. Returns the two row counts.
    Streams: 8 bytes a row are held.
    """
    train, validation = folder / "train.parquet", folder / "validation.parquet"
    hashes = np.concatenate([np.zeros(0, np.uint64), *map(prompts, batches(train))])
    held = chosen(hashes, share)
    if not len(held):
        return len(hashes), 0
    train_part, validation_part = (Path(f"{path}.part") for path in (train, validation))
    written = [0, 0]
    schema = pq.read_schema(train)
    try:
        with (
            pq.ParquetWriter(train_part, schema, **WRITTEN) as kept,
            pq.ParquetWriter(validation_part, schema, **WRITTEN) as out,
        ):
            for batch in batches(train):
                inside = np.isin(prompts(batch), held)
                for i, (writer, mask) in enumerate(((kept, ~inside), (out, inside))):
                    part = batch.filter(pa.array(mask))
                    written[i] += len(part)
                    if len(part):
                        writer.write_batch(part)
        os.replace(validation_part, validation)
        os.replace(train_part, train)
    finally:
        train_part.unlink(missing_ok=True)
        validation_part.unlink(missing_ok=True)
    return written[0], written[1]


def chosen(hashes: Any, share: float, least: int = 1) -> Any:
    """The prompts to hold out, as hashes: those with the smallest, up to the wanted rows.

    `least` is how many rows are wanted whatever the share of them.
    """
    distinct, rows = np.unique(hashes, return_counts=True)
    if share <= 0 or len(distinct) < 2:
        return distinct[:0]
    wanted = min(max(round(share * len(hashes)), least), MOST_ROWS)
    small = rows <= wanted
    if not small.any():
        return distinct[[rows.argmin()]]
    taken = distinct[small][np.cumsum(rows[small]) <= wanted]
    return taken[: len(distinct) - 1]  # one prompt stays to be learned

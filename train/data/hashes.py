"""64-bit hashes of training rows, to find the same row or the same prompt again.

    for batch in batches(Path("train.parquet")):
        prompts(batch), whole(batch)    # uint64, one per row

Two different texts among a hundred million share a hash with a probability of about one in four
thousand, so counts by hash are counts.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BATCH_ROWS = 4096


def batches(parquet: Path, columns: list[str] | None = None) -> Iterator[Any]:
    """The record batches of a file, a few thousand rows each."""
    with pq.ParquetFile(parquet, buffer_size=1 << 20, pre_buffer=False) as file:
        yield from file.iter_batches(BATCH_ROWS, columns=columns)


def prompts(batch: Any) -> Any:
    """Hash of each row's first user message; rows without one share the hash of nothing."""
    messages, first = _flat(batch)
    users = np.flatnonzero(pc.equal(messages.field("role"), "user").to_numpy(zero_copy_only=False))
    rows, at = np.unique(np.searchsorted(first, users, side="right") - 1, return_index=True)
    texts = messages.field("content").take(pa.array(users[at]))
    hashes = np.zeros(len(batch), np.uint64)
    hashes[rows] = _hashes(texts, np.arange(len(texts) + 1))
    return hashes


def whole(batch: Any) -> Any:
    """Hash of each row: the texts of all its messages, and the rejected answer where it has one."""
    messages, first = _flat(batch)
    hashes = _hashes(messages.field("content"), first)
    texts = [(messages.field("thinking"), first)]
    if "rejected" in batch.schema.names:
        rejected, each = batch.column("rejected"), np.arange(len(batch) + 1)
        texts += [(rejected.field("content"), each), (rejected.field("thinking"), each)]
    for array, offsets in texts:
        # an odd factor keeps every bit, and the order of the parts counts
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + _hashes(array, offsets)
    return hashes


def last_thinking(batch: Any) -> Any:
    """The thinking of each row's last message, null where it has none."""
    messages, first = _flat(batch)
    return messages.field("thinking").take(pa.array(first[1:] - 1))


def _flat(batch: Any) -> tuple[Any, Any]:
    """All messages as one struct array, and where each row's begin in it (and the last end)."""
    lists = batch.column("messages")
    offsets = lists.offsets.to_numpy()
    return lists.flatten(), offsets - offsets[0]


def _hashes(texts: Any, groups: Any) -> Any:
    """Hash of the joined texts from `groups[i]` to `groups[i + 1]`, for each i; null is empty."""
    import xxhash

    if not len(texts):
        return np.zeros(len(groups) - 1, np.uint64)
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset :][groups].tolist()
    view = memoryview(data or b"")
    of = xxhash.xxh3_64_intdigest
    return np.fromiter((of(view[a:b]) for a, b in pairwise(ends)), np.uint64, len(groups) - 1)

"""The dataset report: what is in the rows that a run learns from, before it learns from them.

    report = describe(folder, config, conversions, tokens)    # also written to folder/report.json
    for line in lines(report): ...

Reads the Parquet of messages and of tokens once each, in bounded memory: duplicates and leakage are
counted on 64-bit hashes, all of them up to `Counted.LIMIT` different rows, above that on an even
share of them. Languages are those of up to `SAMPLED` rows spread over the set.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from train.data import hashes, language
from train.data.convert import Report
from train.recipe import DataConfig
from train.runs import write_json

SAMPLED = 1000
EDGES = [1, 2, 3, *(step << i for i in range(19) for step in (4, 5, 6, 7))]
"""Token lengths: bin i has the rows from EDGES[i] on, below EDGES[i + 1]; four bins a doubling."""


def describe(
    folder: Path,
    config: DataConfig,
    conversions: Mapping[str, Report],
    tokens: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Describe `folder/{train,validation}.parquet` and their tokens; write `folder/report.json`.

    `conversions` has the report on train, and on validation where it was given; `tokens` the
    TokenReport of each as a dict, and is empty where rows are not tokenised (method dpo).
    """
    report: dict[str, Any] = {}
    validation = folder / "validation.parquet"
    held = _Rows(validation) if validation.exists() else None
    if held:
        held.finish()
    train = _Rows(folder / "train.parquet", held)
    train.finish()
    for name, rows in (("train", train), ("validation", held)):
        if rows is None:
            continue
        part = _conversion(conversions.get(name)) | rows.as_dict()
        if name in tokens:
            part["tokens"] = _tokens(folder / f"{name}.tokens.parquet", tokens[name])
        report[name] = part
    if held:
        report["validation"]["held_out"] = "validation" not in conversions
        report["leakage"] = {
            "prompts": held.prompts.found(),
            "rows": held.whole.found(),
            "of": held.rows,
        }
    if config.reasoning_language:
        report["language"] = _language(train.thinking, config.reasoning_language)
    write_json(folder / "report.json", report)
    return report


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people, without what the conversion has said already."""
    for name in ("train", "validation"):
        if name not in report:
            continue
        part = report[name]
        held = " (held out of the training rows)" if part.get("held_out") else ""
        thinking = f"{part['with_thinking']:,} of them with reasoning"
        yield f"{name}: {part['rows']:,} rows{held}, {thinking}"
        for kind, count in part.get("defects", {}).items():
            yield f"{name}: {count:,} rows passed over: {kind}"
        if count := part["duplicates"]:
            yield f"{name}: {count:,} rows are there more than once{_about(part)}"
        if tokens := part.get("tokens"):
            yield (
                f"{name}: {tokens['tokens']:,} tokens, {tokens['trained_share']:.1%} of them "
                f"learned; {tokens['truncated']:,} rows cut, {tokens['fully_masked']:,} left out"
            )
            yield f"{name}: rows by tokens: {_bins(tokens['length'])}"
    if leakage := report.get("leakage"):
        told = "no validation row has a prompt of the training rows"
        if leakage["prompts"]:
            told = (
                f"{leakage['prompts']:,} of {leakage['of']:,} validation rows have a prompt of the "
                f"training rows, {leakage['rows']:,} are the same row: their loss says little"
            )
        yield f"leakage: {told}"
    if spoken := report.get("language"):
        asked = f"reasoning in {spoken['asked']}"
        if not spoken["sampled"]:
            yield f"{asked}: no row has reasoning"
        elif spoken["share"] is None:
            yield f"{asked}: not a language that can be recognised here"
        else:
            others = {k: v for k, v in spoken["found"].items() if k != spoken["code"]}
            told = ", ".join(f"{count} {key}" for key, count in others.items())
            also = f" (others: {told})" if others else ""
            yield f"{asked}: {spoken['share']:.1%} of {spoken['sampled']:,} sampled rows{also}"


class Counted:
    """How often each hash was added; memory is bounded by keeping those up to `bound` only."""

    LIMIT = 1 << 22
    """Different hashes held: about 100 MiB while they are merged."""

    def __init__(self) -> None:
        self.hashes = np.zeros(0, np.uint64)
        self.counts = np.zeros(0, np.int64)
        self.bound = 2**64 - 1
        self.seen = np.zeros(0, bool)
        self._waiting: list[Any] = []
        self._size = 0

    def add(self, added: Any) -> None:
        if not self.exact:
            added = added[added <= np.uint64(self.bound)]
        self._waiting.append(added)
        self._size += len(added)
        if self._size > self.LIMIT // 4:
            self.finish()

    def finish(self) -> None:
        """Merge what was added; call before asking."""
        if self._waiting:
            new, counts = np.unique(np.concatenate(self._waiting), return_counts=True)
            every = np.concatenate([self.hashes, new])
            order = np.argsort(every, kind="stable")
            every, counts = every[order], np.concatenate([self.counts, counts])[order]
            first = np.flatnonzero(np.r_[True, every[1:] != every[:-1]]) if len(every) else order
            self.hashes = every[first]
            self.counts = np.add.reduceat(counts, first) if len(every) else counts
            self._waiting, self._size = [], 0
        while len(self.hashes) > self.LIMIT:
            self.bound //= 2
            inside = self.hashes <= np.uint64(self.bound)
            self.hashes, self.counts = self.hashes[inside], self.counts[inside]
        self.seen = np.zeros(len(self.hashes), bool)

    @property
    def exact(self) -> bool:
        return self.bound == 2**64 - 1

    def duplicates(self) -> int:
        """Rows that repeat an earlier one."""
        return self._scaled(int((self.counts - 1).sum()))

    def look_for(self, others: Any) -> None:
        """Note which of these hashes are among `others`."""
        if len(self.hashes):
            at = np.minimum(np.searchsorted(self.hashes, others), len(self.hashes) - 1)
            self.seen[at[self.hashes[at] == others]] = True

    def found(self) -> int:
        """Rows whose hash was looked for and found."""
        return self._scaled(int(self.counts[self.seen].sum()))

    def _scaled(self, count: int) -> int:
        return round(count * (2**64 / (self.bound + 1)))


class _Rows:
    """One pass over a Parquet of messages, which notes what of `held` it meets."""

    def __init__(self, parquet: Path, held: "_Rows | None" = None) -> None:
        self.rows = pq.read_metadata(parquet).num_rows
        self.with_thinking = 0
        self.prompts, self.whole = Counted(), Counted()
        self.thinking: list[str] = []
        picked = np.unique(np.linspace(0, self.rows - 1, SAMPLED).astype(np.int64))
        start = 0
        for batch in hashes.batches(parquet):
            prompts, whole = hashes.prompts(batch), hashes.whole(batch)
            self.prompts.add(prompts)
            self.whole.add(whole)
            if held:
                held.prompts.look_for(prompts)
                held.whole.look_for(whole)
            thinking = hashes.last_thinking(batch)
            self.with_thinking += len(thinking) - thinking.null_count
            here = picked[(picked >= start) & (picked < start + len(batch))] - start
            self.thinking += filter(None, thinking.take(here).to_pylist())
            start += len(batch)

    def finish(self) -> None:
        self.prompts.finish()
        self.whole.finish()

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "with_thinking": self.with_thinking,
            "duplicates": self.whole.duplicates(),
            "duplicates_exact": self.whole.exact,
        }


def _conversion(report: Report | None) -> dict[str, Any]:
    if report is None:
        return {}
    return {
        "form": report.form,
        "read": report.read,
        "bad": report.bad,
        "defects": dict(report.defects.most_common()),
        "notices": dict(sorted(report.notices.items())),
    }


def _tokens(parquet: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    counts = np.zeros(len(EDGES) - 1, np.int64)
    for batch in hashes.batches(parquet, ["length"]):
        lengths = np.minimum(batch.column("length").to_numpy(), EDGES[-1] - 1)
        counts += np.histogram(lengths, EDGES)[0]
    filled = np.flatnonzero(counts)
    first, last = (filled[0], filled[-1]) if len(filled) else (0, 0)
    return {
        **{key: report[key] for key in ("tokens", "trained_tokens", "truncated", "fully_masked")},
        "trained_share": round(report["trained_tokens"] / max(report["tokens"], 1), 4),
        "longest": report["longest"],
        "length": {
            "edges": EDGES[first : last + 2],
            "counts": counts[first : last + 1].tolist(),
        },
    }


def _language(thinking: list[str], asked: str) -> dict[str, Any]:
    wanted = language.code(asked)
    found = Counter(key or "undecided" for key in language.detect(thinking))
    share = round(found[wanted] / len(thinking), 4) if wanted and thinking else None
    return {
        "asked": asked,
        "code": wanted,
        "sampled": len(thinking),
        "found": dict(found.most_common()),
        "share": share,
    }


def _about(part: Mapping[str, Any]) -> str:
    return "" if part["duplicates_exact"] else " (counted on a share of them)"


def _bins(length: Mapping[str, Any]) -> str:
    edges, counts = length["edges"], length["counts"]
    return ", ".join(
        f"{start}–{end - 1}: {count:,}"
        for start, end, count in zip(edges, edges[1:], counts, strict=False)
    )

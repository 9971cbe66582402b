"""`<think>` rows as JSON Lines → messages as Parquet: ours, pandas and datasets.map, in one run.

    python -m bench.data_conversion [--rows 500000]

Each side is a process of its own and is timed from opening the JSON Lines to the closed Parquet,
without its imports; it runs twice and its better time counts, since short runs are noisy. About
96 % of the rows are well formed, the rest defective in three ways; every side must keep the same
rows with the same messages. The others are written as one would write them: pandas with
`str.extract`, datasets with one function per row.
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.table import Result, child, table

ROWS = 500_000
MANY_ROWS = 5_000_000
MIB = 1 << 20
PARTS = (
    *("国の都市だ。", "首都はシドニーと", "値引きは5000から3850を引いた1150円だ。"),
    *("これを7で割ると14余り2になる。", "Let us check the units first. ", "then 12 × 3 = 36. "),
)
PATTERN = r"(?s)^\s*<think>(.*?)</think>(.*)$"
STRUCT = ("role", "content", "thinking")


def measure(rows: int = ROWS) -> list[Result]:
    """Rows per second of each side, and ours against the others."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "rows.jsonl")
        write(source, rows)
        measured: dict[str, Any] = {}
        for side in [*SIDES, *SIDES]:
            run, _ = child("bench.data_conversion", ["--side", side, "--source", str(source)])
            measured[side] = min(measured.get(side, run), run, key=lambda r: float(r["seconds"]))
    ours = measured.pop("ours")
    pace = rows / ours["seconds"]
    equal = all(other["digest"] == ours["digest"] for other in measured.values())
    results = [
        Result(name=NAMES[side], value=rows / other["seconds"], unit="rows/s")
        for side, other in measured.items()
    ]
    results.append(
        Result(
            name="conversion",
            value=pace,
            unit="rows/s",
            target=">= 250,000 rows/s",
            met=pace >= 250_000,
        )
    )
    for side in ("pandas", "datasets"):
        ratio = measured[side]["seconds"] / ours["seconds"]
        results.append(
            Result(
                name="conversion",
                value=pace,
                unit="rows/s",
                baseline=NAMES[side],
                ratio=ratio,
                target=">= 4x",
                met=ratio >= 4,
            )
        )
    results.append(
        Result(
            name="sides whose rows are those of the conversion",
            value=sum(other["digest"] == ours["digest"] for other in measured.values()),
            unit=f"of {len(measured)}",
            target="all",
            met=equal,
        )
    )
    return results


def memory(rows: int = ROWS, many: int = MANY_ROWS) -> list[Result]:
    """Peak memory of converting `rows`, and `many`, rows in a process of its own."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "rows.jsonl")
        write(source, rows)
        for count in (rows, many):
            arguments = ["--side", "ours", "--source", str(source), "--times", str(count // rows)]
            measured, peak = child("bench.data_conversion", arguments)
            results.append(
                Result(
                    name=f"peak memory, {measured['read']:,} rows",
                    value=peak / MIB,
                    unit="MiB",
                    target="< 1,024 MiB",
                    met=peak < 1024 * MIB,
                )
            )
    return results


def write(path: Path, rows: int) -> None:
    """`rows` synthetic rows of about 300 characters; the same ones each time."""
    rng = random.Random(0)

    def text(length: int) -> str:
        found = ""
        while len(found) < length:
            found += rng.choice(PARTS)
        return found

    with path.open("w", encoding="utf-8") as stream:
        for i in range(rows):
            thinking, answer = text(180), text(60)
            whole = {
                0: f"<think>{thinking}{answer}",
                1: f"<think>{thinking}</think>\n\n ",
                2: f"<think>{thinking}</think>{answer}<think>{thinking}</think>{answer}",
            }.get(rng.randrange(75), f"<think>\n{thinking}\n</think>\n\n{answer}")
            row = {"question": f"{i}: {text(30)}", "answer": whole}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _ours(sources: list[Path], out: Path) -> Callable[[], Any]:
    from train.data.convert import convert
    from train.recipe import DataConfig

    config = DataConfig(train="", max_bad_rows=sys.maxsize)
    return lambda: convert(sources, config, out.parent, out.stem).read


def _pandas(sources: list[Path], out: Path) -> Callable[[], Any]:
    import pandas as pd  # type: ignore[import-untyped] # shipped without types
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct(dict.fromkeys(STRUCT, pa.string()))
    schema = pa.schema({"messages": pa.list_(message)})

    def run() -> int:
        frame = pd.read_json(sources[0], lines=True, dtype=False)
        split = frame["answer"].str.extract(PATTERN)
        thinking, content = split[0].str.strip(), split[1].str.strip()
        good = content.notna() & (content != "") & ~content.str.contains("<think>", regex=False)
        messages = [
            [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer, "thinking": why},
            ]
            for question, answer, why in zip(
                frame["question"][good], content[good], thinking[good], strict=True
            )
        ]
        pq.write_table(pa.table({"messages": messages}, schema=schema), out)
        return len(frame)

    return run


def _datasets(sources: list[Path], out: Path, processes: int | None = None) -> Callable[[], Any]:
    import re

    import datasets

    datasets.disable_progress_bars()
    text = datasets.Value("string")
    features = datasets.Features({"messages": datasets.List(dict.fromkeys(STRUCT, text))})
    pattern = re.compile(PATTERN)

    def convert(row: dict[str, str]) -> dict[str, Any]:
        match = pattern.match(row["answer"])
        content = match[2].strip() if match else ""
        if not match or not content or "<think>" in content:
            return {"messages": []}
        answer = {"role": "assistant", "content": content, "thinking": match[1].strip()}
        question = {"role": "user", "content": row["question"], "thinking": None}
        return {"messages": [question, answer]}

    def run() -> int:
        rows = datasets.load_dataset(
            "json", data_files=str(sources[0]), split="train", cache_dir=str(out.parent)
        )
        made = rows.map(
            convert, remove_columns=rows.column_names, features=features, num_proc=processes
        )
        made.filter(lambda row: len(row["messages"]) > 0, num_proc=processes).to_parquet(str(out))
        return len(rows)

    return run


SIDES: dict[str, Callable[[list[Path], Path], Callable[[], Any]]] = {
    "ours": _ours,
    "pandas": _pandas,
    "datasets": _datasets,
    "datasets-2": lambda sources, out: _datasets(sources, out, 2),
}
NAMES = {
    "pandas": "pandas, str.extract",
    "datasets": "datasets.map, row by row",
    "datasets-2": "datasets.map, two processes",
}


def _side(name: str, source: Path, times: int) -> dict[str, Any]:
    """Run one side on the file, given `times` times over; what the child process prints."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        out = Path(folder, "rows.parquet")
        run = SIDES[name]([source] * times, out)
        started = time.perf_counter()
        read = run()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "read": read, "digest": _digest(out) if times == 1 else ""}


def _digest(parquet: Path) -> str:
    """One hash over every message of a Parquet, however it is stored."""
    whole = hashlib.sha256()
    for role, content, thinking in _messages(parquet):
        whole.update(f"{role}\0{content}\0{thinking}\0".encode())
    return whole.hexdigest()


def _messages(parquet: Path) -> Iterator[tuple[str | None, ...]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(parquet).iter_batches(4096):
        messages = batch.column("messages").flatten()
        yield from zip(*(messages.field(name).to_pylist() for name in STRUCT), strict=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.data_conversion", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows to convert")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(_side(arguments.side, arguments.source, arguments.times)))
    else:
        print(table(measure(arguments.rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

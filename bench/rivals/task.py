"""What every side is given: one model, one set of rows, one set of hyperparameters."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj")
"""What all sides adapt: attention only, since not all of them can adapt experts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One training, as JSON on the command line of each side."""

    shape: Literal["mistral", "gpt_oss"]
    folder: str
    """Holds base/, train/train.parquet, tokenized/ (for LLaMA-Factory) and held_out.parquet."""
    documents: int = 160
    held_out: int = 48
    """Documents that the evaluation loss is taken on."""
    shortest: int = 16
    """Tokens."""
    longest: int = 1024
    """Tokens; also what the sides that do not pack cut at."""
    epochs: int = 1
    learning_rate: float = 1e-2
    """At the start; linear to zero, without a warm-up.

    High enough that the loss levels off within the epoch: while it falls steeply, one optimiser
    step more or less, or another order of rows, moves it by more than the sides differ.
    """
    rank: int = 8
    alpha: int = 16
    batch: int = 8
    """Documents in an optimiser step where documents are not packed."""
    pack: int = 2048
    """Tokens in a pack, of which a step has one: about as many as `batch` documents have."""
    seed: int = 0

    @property
    def base(self) -> Path:
        return Path(self.folder) / "base"

    @property
    def rows(self) -> Path:
        """Parquet of input_ids and labels, alone in its folder."""
        return Path(self.folder) / "train" / "train.parquet"

    @property
    def tokenized(self) -> Path:
        """The same rows, as a dataset saved to disk."""
        return Path(self.folder) / "tokenized"

    @property
    def held_out_rows(self) -> Path:
        return Path(self.folder) / "held_out.parquet"

    def json(self) -> str:
        return json.dumps(asdict(self))


def read() -> tuple[Task, Path]:
    """The task and the folder to work in, from the command line of a side."""
    return Task(**json.loads(sys.argv[1])), Path(sys.argv[2])


def answer(**result: Any) -> None:
    """The last line of a side's output."""
    print(json.dumps(result), flush=True)

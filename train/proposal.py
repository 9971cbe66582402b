"""What to change in a recipe so that it fits: the first rung of a ladder whose estimate does.

propose(recipe, settings, gpus.find("T4").memory)     # (["training.max_length=1024"], Estimate)
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from train.configuration import build, override
from train.estimate import Estimate, estimate, fits
from train.recipe import RETIRED, Recipe

SHORTEST = 256
"""The proposal never cuts packs to fewer tokens than this."""


def propose(
    recipe: Recipe,
    settings: Any,
    memory: int,
    *,
    processes: int = 1,
    device: Literal["cuda", "cpu"] = "cuda",
    dtype: str = "bfloat16",
    tokens: int | None = None,
) -> tuple[list[str], Estimate] | None:
    """The first rung of the ladder that fits into `memory` bytes, as overrides; None if none does.

    From what changes the result least to what changes it most: recompute activations; shorter
    packs, down to an eighth; an adapter instead of all weights; no experts in the adapter; the
    base in 4 bits. Each later rung starts again at the recipe's own length.
    """

    def guess(overrides: Sequence[str]) -> Estimate:
        return estimate(
            _overridden(recipe, overrides),
            settings,
            processes=processes,
            device=device,
            dtype=dtype,
            tokens=tokens,
        )

    for rungs in _ladder(recipe, settings, device):
        if not fits(guess(rungs[-1]), memory):
            continue  # nor do the longer ones
        for overrides in rungs:
            if fits(found := guess(overrides), memory):
                return overrides, found
    return None


def _ladder(recipe: Recipe, settings: Any, device: str) -> Iterator[list[list[str]]]:
    """Groups of overrides, within each from the recipe's own length to the shortest."""
    training = recipe.training
    recompute = "training.gradient_checkpointing=true"
    first = [] if training.gradient_checkpointing is True else [recompute]
    starts: list[list[str]] = [[]]
    if recipe.tuning == "full":
        starts.append(["tuning=lora"])
    experts = bool(recipe.lora.target_parameters)
    if experts and recipe.tuning != "qlora":
        starts.append([*starts[-1], "lora.target_parameters=[]"])
    if device == "cuda" and recipe.tuning != "qlora" and settings.model_type != "gpt_oss":
        starts.append(["tuning=qlora", *(["lora.target_parameters=[]"] if experts else [])])
    lengths = [training.max_length // by for by in (2, 4, 8)]
    shorter = [f"training.max_length={length}" for length in lengths if length >= SHORTEST]
    for start in starts:
        own = [[], first] if first and not start else [[*start, *first]]
        yield [*own, *([*start, *first, length] for length in shorter)]


def _overridden(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    values = dataclasses.asdict(recipe)
    for line in overrides:
        key, _, text = line.partition("=")
        override(values, key.split("."), text, line)
    changed: Recipe = build(Recipe, values, where="proposal", retired=RETIRED)
    return changed

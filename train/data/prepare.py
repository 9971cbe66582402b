"""From the recipe's `data` to the first step: find, convert, split, tokenise, report.

    prepared = load(recipe, folder) or prepare(recipe, folder, tokenizer, template_kwargs, cache)

folder/
    sources.json                what was read, as fingerprints
    train.parquet               messages; train.head.jsonl: the first of them, for people
    validation.parquet          messages held out
    train.tokens.parquet        token ids and labels (method sft)
    validation.tokens.parquet
    report.json                 the dataset report; written last, so it says that all is there
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.data import report as reports
from train.data import sources
from train.data.convert import convert
from train.data.split import hold_out
from train.recipe import Recipe
from train.runs import read_json, write_json

log = logging.getLogger(__name__)

SETS = ("train", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Files to learn from and to validate on; without validation rows the latter are None."""

    train: Path
    """Token ids and labels; for method dpo the messages themselves, with `rejected`."""
    validation: Path | None
    messages_train: Path
    messages_validation: Path | None
    report: dict[str, Any]
    """The dataset report, as in report.json."""


def prepare(
    recipe: Recipe, folder: Path, tokenizer: Any, template_kwargs: dict[str, Any], cache: Path
) -> Prepared:
    """Make all files of `folder` anew; InputError names the source, row or key that is wrong."""
    from train.data.tokens import tokenise

    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("report.json", "train.parquet", "validation.parquet"):  # of an earlier try
        (folder / name).unlink(missing_ok=True)
    files = _files(recipe, cache)
    write_json(folder / "sources.json", _fingerprints(files))
    pairs = recipe.method == "dpo"
    conversions = {}
    for name, paths in files.items():
        conversions[name] = convert(paths, recipe.data, folder, name, pairs=pairs)
        for line in conversions[name].lines():
            log.info("data: %s: %s", name, line)
    if "validation" not in files and recipe.data.validation_share:
        kept, held = hold_out(folder, recipe.data.validation_share)
        log.info(
            "data: %s rows held out of %s, since data.validation is not set and "
            "data.validation_share is %g",
            f"{held:,}",
            f"{kept + held:,}",
            recipe.data.validation_share,
        )
    tokens = {}
    for name in () if pairs else SETS:
        messages = folder / f"{name}.parquet"
        if messages.exists():
            tokens[name] = tokenise(
                messages,
                folder / f"{name}.tokens.parquet",
                tokenizer,
                template_kwargs,
                recipe.training.max_length,
                seed=recipe.training.seed,
            ).as_dict()
    report = reports.describe(folder, recipe.data, conversions, tokens)
    for line in reports.lines(report):
        log.info("data: %s", line)
    log.info("data: prepared in %.1f s", time.monotonic() - started)
    return _prepared(recipe, folder, report)


def load(recipe: Recipe, folder: Path) -> Prepared | None:
    """What `prepare` made in `folder`; None where it did not finish."""
    report = read_json(folder / "report.json")
    return None if report is None else _prepared(recipe, folder, report)


def unchanged(recipe: Recipe, folder: Path, cache: Path) -> bool:
    """Whether the sources still have the rows that `folder` was, or is yet to be, made from."""
    recorded = read_json(folder / "sources.json")
    return recorded is None or bool(recorded == _fingerprints(_files(recipe, cache)))


def _files(recipe: Recipe, cache: Path) -> dict[str, list[Path]]:
    given = {name: getattr(recipe.data, name) for name in SETS}
    return {
        name: sources.resolve(spec, f"data.{name}", cache) for name, spec in given.items() if spec
    }


def _fingerprints(files: dict[str, list[Path]]) -> dict[str, str]:
    return {name: sources.fingerprint(paths) for name, paths in files.items()}


def _prepared(recipe: Recipe, folder: Path, report: dict[str, Any]) -> Prepared:
    kind = "" if recipe.method == "dpo" else ".tokens"
    held = "validation" in report
    return Prepared(
        train=folder / f"train{kind}.parquet",
        validation=folder / f"validation{kind}.parquet" if held else None,
        messages_train=folder / "train.parquet",
        messages_validation=folder / "validation.parquet" if held else None,
        report=report,
    )

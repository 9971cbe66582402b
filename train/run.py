"""One fine-tune: prepare the rows → evaluate → train → merge → check → evaluate.

run(recipe, outputs=Path("outputs"), cache=Path(".cache")) -> Path of the run's folder

outputs/<recipe>/<run id>/
    recipe.yaml      the resolved recipe: every value that the run used
    data/            the converted rows
    adapter/         the LoRA weights
    merged/          the model to serve, with homeport.json for the server
    metrics.json     before, after, and the merge check
outputs/<recipe>/latest → the newest run that finished and passed its checks
"""

import datetime
import gc
import json
import logging
import os
import secrets
from itertools import islice
from pathlib import Path
from typing import Any

from train import dataset
from train import recipe as recipes
from train.recipe import Recipe

log = logging.getLogger(__name__)

PROBE_ROWS = 4
"""Rows whose logits are compared before and after merging."""


def run(recipe: Recipe, *, outputs: Path, cache: Path) -> Path:
    """Run the whole recipe. Raises TrainError's kinds; `latest` moves only at the very end."""
    folder = new_folder(outputs / recipe.name)
    log.info("run: %s", folder)
    (folder / "recipe.yaml").write_text(recipes.dump(recipe), encoding="utf-8")
    train_rows, evaluation_rows = prepare(recipe, folder / "data")

    from train import evaluate, merge, model, sft  # torch, transformers, trl: seconds to import

    template_kwargs = {"current_date": recipe.data.current_date}
    base = model.resolve(recipe.model, cache)
    tokenizer = model.load_tokenizer(base)
    network = model.load_model(base)
    metrics: dict[str, Any] = {"recipe": recipe.name, "run": folder.name, "before": None}
    if evaluation_rows:
        metrics["before"] = evaluate.measure(
            network, tokenizer, evaluation_rows, recipe.evaluation, template_kwargs
        )
        log.info("before: %s", _sentence(metrics["before"]))
    metrics["training"] = sft.train_adapter(
        network, tokenizer, train_rows, recipe, base.device, folder
    )
    del network
    gc.collect()  # the merge loads the base afresh; two copies of a 20B model would not fit
    probe = list(islice(read(train_rows), PROBE_ROWS))
    merged, metrics["merge"] = merge.merge(
        base, tokenizer, folder / "adapter", folder / "merged", probe, template_kwargs
    )
    metrics["after"] = None
    if evaluation_rows:
        metrics["after"] = evaluate.measure(
            merged, tokenizer, evaluation_rows, recipe.evaluation, template_kwargs
        )
        log.info("after: %s", _sentence(metrics["after"]))
    write_json(folder / "merged" / "homeport.json", manifest(recipe, folder.name))
    write_json(folder / "metrics.json", metrics)
    point_latest(folder)
    return folder


def new_folder(parent: Path) -> Path:
    """A fresh folder named by UTC time, so that names sort by age, and four random digits."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    folder = parent / f"{stamp}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    return folder


def prepare(recipe: Recipe, folder: Path) -> tuple[Path, list[list[dict[str, Any]]]]:
    """Convert the rows; return the training Parquet and the rows to evaluate on."""
    sources = {"train": recipe.data.train}
    if recipe.data.validation:
        sources["validation"] = recipe.data.validation
    for name, source in sources.items():
        for line in dataset.convert([Path(source)], recipe.data, folder, name).lines():
            log.info("data: %s", line)
    count = recipe.evaluation.rows
    if count and not recipe.data.validation:
        log.info("evaluation: on training rows, since data.validation is not set")
    rows = read(folder / f"{list(sources)[-1]}.parquet")
    return folder / "train.parquet", list(rows if count < 0 else islice(rows, count))


def read(parquet: Path) -> Any:
    """The rows' messages, a batch at a time, without the null fields that Parquet adds."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(parquet).iter_batches(1024):
        for row in batch.to_pylist():
            yield [{k: v for k, v in m.items() if v is not None} for m in row["messages"]]


def manifest(recipe: Recipe, run_id: str) -> dict[str, Any]:
    """What the server must know of the training: defaults of its system message and template."""
    frozen = {"current_date": recipe.data.current_date} if recipe.data.freeze_date else {}
    return {
        "name": recipe.name,
        "run_id": run_id,
        "reasoning_language": recipe.data.reasoning_language or "",
        "persona": recipe.data.persona,
        "chat_template_kwargs": frozen,
    }


def write_json(path: Path, value: Any) -> None:
    """Write `value` so that the file is either whole or not there."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)


def point_latest(folder: Path) -> None:
    """Let `latest` beside `folder` point to it, in one step."""
    link = folder.parent / f".latest-{folder.name}"
    link.symlink_to(folder.name)
    os.replace(link, folder.parent / "latest")


def _sentence(measured: dict[str, Any]) -> str:
    return (
        f"loss {measured['loss']:.4f}, {measured['exact_answers']} of {measured['rows']} "
        f"final answers exact ({measured['exact_share']:.1%})"
    )

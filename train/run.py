"""One fine-tune: prepare the rows → evaluate → train → merge → check → evaluate → report.

    run(recipe, outputs=Path("outputs"), cache=Path(".cache"), stop=stop) -> the run's folder

Every part leaves its result in the run's folder (train/runs.py) under its final name only when it
is whole, and is not done again where that is there. So a run that was stopped, or whose machine was
lost, goes on where it was when the same command is given again.
"""

import gc
import importlib.metadata
import logging
import shutil
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from train import distributed, runs
from train import recipe as recipes
from train.data import prepare
from train.data.convert import read
from train.errors import InputError
from train.interruption import Stop
from train.recipe import Recipe

log = logging.getLogger(__name__)

PROBE_ROWS = 4
"""Rows whose logits are compared before and after merging, and packed and apart."""
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")


def run(
    recipe: Recipe, *, outputs: Path, cache: Path, stop: Stop, fresh: bool = False
) -> Path | None:
    """Run the whole recipe, or go on with it. Raises TrainError's kinds; `latest` moves at the end.

    Returns the folder of the finished run; None in a process that is not the main one.
    """
    import torch

    cuda = torch.cuda.is_available()
    if recipe.training.distributed == "fsdp2" and distributed.processes() > 1 and not cuda:
        raise InputError(
            "training.distributed is fsdp2, which needs GPUs: set it to ddp on this machine."
        )
    distributed.start(cpu=not cuda)
    if not distributed.is_main():
        folder = distributed.from_main(None)
        _train(recipe, folder, cache, stop)
        return None

    def fits(folder: Path) -> bool:
        return prepare.unchanged(recipe, folder / "data", cache)

    text = recipes.dump(recipe)
    with runs.opened(outputs / recipe.name, text, fits, fresh=fresh) as folder:
        distributed.from_main(folder)
        _finish(recipe, folder, *_train(recipe, folder, cache, stop))
    return folder


def _train(recipe: Recipe, folder: Path, cache: Path, stop: Stop) -> tuple[Any, ...]:
    """Everything that all processes do: prepare, load, train. The main one evaluates as well."""
    from train import model

    with distributed.first_on_each_machine():  # which makes or downloads the base
        base = model.resolve(recipe, cache)
        tokenizer = model.load_tokenizer(base)
    template_kwargs = {"current_date": recipe.data.current_date}
    data = folder / "data"
    if distributed.node():  # a second machine makes its own copy, in the same way
        data = Path(tempfile.gettempdir()) / f"homeport-{folder.name}"
    with distributed.first_on_each_machine():
        prepared = prepare.load(recipe, data)
        if prepared is None:
            prepared = prepare.prepare(recipe, data, tokenizer, template_kwargs, cache)
    training = runs.read_json(folder / "training.json")
    if training is None:
        training = _learn(recipe, folder, base, tokenizer, prepared, template_kwargs, stop)
    distributed.leave()
    return base, tokenizer, prepared, template_kwargs, training


def _learn(
    recipe: Recipe,
    folder: Path,
    base: Any,
    tokenizer: Any,
    prepared: Any,
    template_kwargs: dict[str, Any],
    stop: Stop,
) -> dict[str, Any]:
    """Evaluate, check, train; writes adapter/ or weights/, then training.json."""
    from train import dpo, model, sft, tracking, trainer

    network = model.load_model(base, four_bit=recipe.tuning == "qlora")
    checks: dict[str, Any] = {}
    if distributed.is_main():
        _evaluate_once(
            recipe, folder / "before.json", network, tokenizer, prepared, template_kwargs
        )
    if recipe.method == "sft" and recipe.training.packing:
        checks["packing"] = _packing_check(recipe, base, network, prepared)
    report_to = (
        tracking.setup(recipe, folder) if recipe.training.tracking and distributed.is_main() else []
    )
    learn = dpo.train if recipe.method == "dpo" else sft.train
    measured = learn(
        network,
        tokenizer,
        prepared.train,
        prepared.validation,
        recipe,
        base,
        folder,
        stop,
        report_to,
    )
    measured["checks"] = checks
    if distributed.is_main():
        trainer.keep(folder, measured["kept_step"], full=recipe.tuning == "full")
        runs.write_json(folder / "training.json", measured)
    del network
    gc.collect()  # the merge loads the base afresh; two copies of a 20B model would not fit
    return measured


def _packing_check(recipe: Recipe, base: Any, network: Any, prepared: Any) -> dict[str, Any]:
    from train import packing
    from train.data.tokens import read as read_tokens

    rows = [ids for ids, _ in islice(read_tokens(prepared.train), PROBE_ROWS)]
    difference = packing.check_parity(
        network, rows, dtype=base.dtype, max_length=recipe.training.max_length
    )
    return {"difference": difference}


def _evaluate_once(
    recipe: Recipe,
    file: Path,
    network: Any,
    tokenizer: Any,
    prepared: Any,
    template_kwargs: dict[str, Any],
) -> dict[str, Any] | None:
    """Evaluate into `file`, unless it is there."""
    from train import evaluate

    measured: dict[str, Any] | None = runs.read_json(file)
    count = recipe.evaluation.rows
    if measured is not None or not count:
        return measured
    held_out = prepared.messages_validation
    if held_out is None:
        log.info("evaluation: on training rows, since none is held out")
    rows = read(held_out or prepared.messages_train)
    measured = evaluate.measure(
        network,
        tokenizer,
        list(rows if count < 0 else islice(rows, count)),
        recipe.evaluation,
        template_kwargs,
        reasoning_language=recipe.data.reasoning_language,
    )
    log.info(
        "%s: loss %.4f, %d of %d final answers exact (%.1f %%)",
        file.stem,
        measured["loss"],
        measured["exact_answers"],
        measured["rows"],
        100 * measured["exact_share"],
    )
    runs.write_json(file, measured)
    return measured


def _finish(
    recipe: Recipe,
    folder: Path,
    base: Any,
    tokenizer: Any,
    prepared: Any,
    template_kwargs: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Merge, check, evaluate, report; then the run is finished and `latest` points to it."""
    from train import merge, report, tracking

    trained = folder / ("weights" if recipe.tuning == "full" else "adapter")
    probe = list(islice(read(prepared.messages_train), PROBE_ROWS))
    network, check = merge.publish(
        base, tokenizer, trained, folder / "merged", probe, template_kwargs
    )
    after = _evaluate_once(
        recipe, folder / "after.json", network, tokenizer, prepared, template_kwargs
    )
    runs.write_json(folder / "merged" / "homeport.json", manifest(recipe, folder.name))
    metrics = {
        "recipe": recipe.name,
        "run": folder.name,
        "before": runs.read_json(folder / "before.json"),
        "training": training,
        "merge": check,
        "after": after,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    runs.write_json(folder / "metrics.json.part", metrics)
    report.write(folder, metrics)
    if recipe.training.tracking:
        tracking.finish(folder, metrics)
    (folder / "metrics.json.part").rename(folder / runs.METRICS)
    runs.point_latest(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for name in (trained if recipe.tuning == "full" else None, *(folder / "data").glob("cache-*")):
        if name:
            shutil.rmtree(name, ignore_errors=True)
    log.info("report: %s", folder / "report.html")


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

"""One fine-tune: prepare the rows → evaluate → train → merge → check → evaluate → report.

    run(recipe, outputs=Path("outputs"), cache=Path(".cache"), stop=stop) -> the run's folder
    run(…, model=Path("/mnt/model"))        then its model is also copied there (train/publish.py)

Every part leaves its result in the run's folder (train/runs.py) under its final name only when it
is whole, and is not done again where that is there. So a run that was stopped, or whose machine was
lost, goes on where it was when the same command is given again.
"""

import gc
import importlib.metadata
import logging
import shutil
import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from train import distributed, publish, runs, tracking
from train import recipe as recipes
from train.data import prepare
from train.data.convert import read, read_pairs
from train.data.prepare import Prepared
from train.errors import InputError
from train.interruption import Stop
from train.model import Base
from train.recipe import Recipe
from train.tracking import Tracker

log = logging.getLogger(__name__)

PROBE_ROWS = 4
"""Rows whose logits are compared before and after merging."""
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What the parts of a run work on."""

    recipe: Recipe
    folder: Path
    base: Base
    tokenizer: Any
    template_kwargs: dict[str, Any]
    prepared: Prepared


def run(
    recipe: Recipe,
    *,
    outputs: Path,
    cache: Path,
    stop: Stop,
    fresh: bool = False,
    model: Path | None = None,
) -> Path | None:
    """Run the whole recipe, or go on with it. Raises TrainError's kinds; `latest` moves at the end.

    With `model` the finished model is also copied there; where the same recipe has a finished run
    already, that is all that is done, unless `fresh`.
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
        shared = distributed.from_main(None)
        if shared is None:  # nothing to train
            distributed.leave()
            return None
        learn(begin(recipe, shared, cache), stop, Tracker())
        return None

    def fits(folder: Path) -> bool:
        return prepare.unchanged(recipe, folder / "data", cache)

    text, parent = recipes.dump(recipe), outputs / recipe.name
    if model and not fresh and (done := runs.finished(parent, text, fits)):
        log.info("run: %s (finished before; --fresh would start anew)", done)
        distributed.from_main(None)
        distributed.leave()
        publish.publish(done, model)
        return done
    with runs.opened(parent, text, fits, fresh=fresh) as folder:
        distributed.from_main(folder)
        with tracking.opened(recipe, folder, outputs) as tracker:
            job = begin(recipe, folder, cache)
            finish(job, learn(job, stop, tracker), stop, tracker)
    if model:
        stop.check()
        publish.publish(folder, model)
    return folder


def begin(recipe: Recipe, folder: Path, cache: Path) -> Job:
    """Find the base, prepare the rows; all processes do."""
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
    return Job(
        recipe=recipe,
        folder=folder,
        base=base,
        tokenizer=tokenizer,
        template_kwargs=template_kwargs,
        prepared=prepared,
    )


def learn(job: Job, stop: Stop, tracker: Tracker) -> dict[str, Any]:
    """Evaluate and train; leaves adapter/ or weights/, and what was measured."""
    from train import dpo, model, sft, trainer

    file = job.folder / "training.json"
    measured: dict[str, Any] | None = runs.read_json(file)
    if measured is None:
        network = model.load_model(job.base, four_bit=job.recipe.tuning == "qlora")
        if distributed.is_main():
            evaluate_once(job, "before", network)
        train = dpo.train if job.recipe.method == "dpo" else sft.train
        measured = train(
            network,
            job.tokenizer,
            job.prepared.train,
            job.prepared.validation,
            job.recipe,
            job.base,
            job.folder,
            stop,
            tracker.callbacks(),
        )
        if distributed.is_main():
            trainer.keep(job.folder, measured["kept_step"], full=job.recipe.tuning == "full")
            runs.write_json(file, measured)
        del network
        gc.collect()  # the merge loads the base afresh; two copies of a 20B model would not fit
    distributed.leave()
    return measured


def evaluate_once(job: Job, name: str, network: Any) -> dict[str, Any] | None:
    """Evaluate into `<name>.json`, unless it is there."""
    from train import evaluate

    file = job.folder / f"{name}.json"
    measured: dict[str, Any] | None = runs.read_json(file)
    count = job.recipe.evaluation.rows
    if measured is not None or not count:
        return measured
    source = job.prepared.messages_validation
    if source is None:
        log.info("evaluation: on training rows, since none is held out")
        source = job.prepared.messages_train
    limit = None if count < 0 else count
    measured = evaluate.measure(
        network,
        job.tokenizer,
        list(islice(read(source), limit)),
        job.recipe.evaluation,
        job.template_kwargs,
        reasoning_language=job.recipe.data.reasoning_language,
    )
    if job.recipe.method == "dpo":
        pairs = list(islice(read_pairs(source), limit))
        before = None if name == "before" else runs.read_json(job.folder / "before.json")
        measured |= evaluate.preference(
            network, job.tokenizer, pairs, job.template_kwargs, before and before["margins"]
        )
        preferred = 100 * measured["preferred_share"]
        log.info("%s: %.1f %% of pairs the right way round", name, preferred)
    log.info(
        "%s: loss %.4f, %d of %d final answers exact (%.1f %%)",
        name,
        measured["loss"],
        measured["exact_answers"],
        measured["rows"],
        100 * measured["exact_share"],
    )
    runs.write_json(file, measured)
    return measured


def finish(job: Job, training: dict[str, Any], stop: Stop, tracker: Tracker) -> None:
    """Merge, check, evaluate, report; then the run is finished and `latest` points to it."""
    from train import merge, report, trainer

    stop.check()
    folder, full = job.folder, job.recipe.tuning == "full"
    network, check = merge.publish(
        job.base,
        job.tokenizer,
        folder / ("weights" if full else "adapter"),
        folder / "merged",
        list(islice(read(job.prepared.messages_train), PROBE_ROWS)),
        job.template_kwargs,
    )
    stop.check()
    after = evaluate_once(job, "after", network)
    stop.check()
    for made in ("merged",) if full else ("merged", "adapter"):  # which can be served alone too
        runs.write_json(folder / made / "homeport.json", manifest(job.recipe, folder.name))
    metrics = {
        "recipe": job.recipe.name,
        "run": folder.name,
        "before": runs.read_json(folder / "before.json"),
        "training": training,
        "merge": check,
        "after": after,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    page = report.write(folder, metrics)
    tracker.finish(metrics, page)
    runs.write_json(folder / runs.METRICS, metrics)
    runs.point_latest(folder)
    # what only an unfinished run needs; of a full fine-tune merged/ has the weights too
    for name in (
        "checkpoints",
        "weights",
        *(f"data/{p.name}" for p in folder.glob(f"data/{trainer.CACHE}-*")),
    ):
        shutil.rmtree(folder / name, ignore_errors=True)
    log.info("report: %s", page)


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

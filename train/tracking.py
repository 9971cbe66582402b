"""MLflow tracking, here and on Azure ML alike. Whatever becomes of it, the training goes on.

    with opened(recipe, folder, outputs) as tracker:
        train(…, callbacks=tracker.callbacks())
        tracker.finish(metrics, report)

Where runs go: to MLFLOW_TRACKING_URI where it is set, as in a job of Azure ML, whose own run
(MLFLOW_RUN_ID) is used then; else to `outputs/mlflow.db`, which `make track` shows. A run that is
gone on with goes on in its MLflow run too, which `mlflow.json` in its folder remembers.

transformers' own MLflowCallback is not used: a server that cannot be reached, or is lost on the
way, ends the training with an error, and it logs a hundred arguments of its own, not the recipe.
"""

import dataclasses
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from train import distributed
from train.errors import Interrupted, public
from train.recipe import Recipe
from train.runs import read_json, write_json

log = logging.getLogger(__name__)

STORE = "mlflow.db"
"""Below outputs/. SQLite, since MLflow 3 refuses its former store of plain files."""
ARTIFACTS = "mlflow.artifacts"
REMEMBERED = "mlflow.json"
PARAMETER_CHARACTERS = 500
"""Longest value of a parameter that every MLflow server takes."""
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # of its defaults a lost server would hold up the training for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}

SPEED = re.compile(r"(train|eval)_(runtime|(samples|steps|tokens)_per_second)|total_flos")
"""What a trainer says of its own speed, and is not logged: `tokens_per_second` says it better, and
Azure ML takes 50 names of metrics per run, which DPO with evaluations on the way would exceed."""

TALKATIVE = ("mlflow", "alembic", "azure", "azureml", "urllib3.connectionpool")


@contextmanager
def opened(recipe: Recipe, folder: Path, outputs: Path) -> Iterator["Tracker"]:
    """The tracker of the run in `folder`; one that does nothing in all processes but the main one.

    The MLflow run ends as this block does: finished, killed (Interrupted: it can go on) or failed.
    """
    tracker = Tracker()
    if recipe.training.tracking and distributed.is_main():
        tracker.start(recipe, folder, outputs)
    try:
        yield tracker
    except (Interrupted, KeyboardInterrupt):
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


class Tracker:
    """One MLflow run; from the first failure on it does nothing any more."""

    def __init__(self) -> None:
        self.client: Any = None
        self.run_id = ""
        self.ours = False
        """Whether it is for us to say how the run ended; Azure ML says it of a job's own run."""

    def start(self, recipe: Recipe, folder: Path, outputs: Path) -> None:
        """Make the run, or find it again, and log the recipe as its parameters."""
        local = f"sqlite:///{outputs.resolve() / STORE}"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or local
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient

            # what goes wrong is said once, below; the libraries would say it many times
            for name in TALKATIVE:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            self.client = MlflowClient(tracking_uri=uri)
            artifacts = outputs.resolve() / ARTIFACTS / recipe.name if uri == local else None
            self.run_id = os.environ.get("MLFLOW_RUN_ID", "")
            self.ours = not self.run_id
            if self.ours:
                self.run_id = self._remembered(folder, uri) or self._new(recipe, folder, artifacts)
                write_json(folder / REMEMBERED, {"uri": public(uri), "run_id": self.run_id})
            self._log_recipe(recipe)
        except Exception as error:
            self._give_up(error)
            return
        if uri == local:
            log.info("tracking: %s (to look at it: make track)", outputs / STORE)
        else:
            log.info("tracking: %s (MLFLOW_TRACKING_URI)", public(uri))

    def _remembered(self, folder: Path, uri: str) -> str | None:
        """The MLflow run that an earlier process made for this folder, running again."""
        from mlflow.exceptions import MlflowException

        known = read_json(folder / REMEMBERED) or {}
        if known.get("uri") != public(uri):
            return None
        try:
            self.client.update_run(known["run_id"], status="RUNNING")
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None  # deleted since
            raise
        return str(known["run_id"])

    def _new(self, recipe: Recipe, folder: Path, artifacts: Path | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or recipe.name
        found = self.client.get_experiment_by_name(name)
        location = artifacts.as_uri() if artifacts else None
        experiment = found.experiment_id if found else self.client.create_experiment(name, location)
        note = {"mlflow.note.content": f"The run's folder: {folder}"}
        made = self.client.create_run(experiment, run_name=folder.name, tags=note)
        return str(made.info.run_id)

    def _log_recipe(self, recipe: Recipe) -> None:
        from mlflow.entities import Param

        # a parameter can be logged once only
        known = self.client.get_run(self.run_id).data.params
        values = flatten(dataclasses.asdict(recipe))
        parameters = [Param(key, value) for key, value in values.items() if key not in known]
        self.client.log_batch(self.run_id, params=parameters)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log the numbers among `values`; not those that are infinite or none."""
        if self.client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now, step)
            for key, value in values.items()
            if isinstance(value, Real) and math.isfinite(value)
        ]
        self._attempt(lambda client: client.log_batch(self.run_id, metrics=metrics))

    def finish(self, metrics: Mapping[str, Any], report: Path) -> None:
        """Log what was measured before, at step 0, and after, and the report as an artifact."""
        last = int((metrics.get("training") or {}).get("steps", 0))
        for part, step in (("before", 0), ("after", last)):
            measured = metrics.get(part) or {}
            self.log({f"evaluation/{key}": value for key, value in measured.items()}, step)
        self._attempt(lambda client: client.log_artifact(self.run_id, str(report)))

    def end(self, status: str) -> None:
        """Say how the run ended, where that is for us to say."""
        if self.ours:
            self._attempt(lambda client: client.set_terminated(self.run_id, status))

    def callbacks(self) -> list[Any]:
        """What a transformers trainer takes to log here as it trains."""
        if self.client is None:
            return []
        from transformers import TrainerCallback

        tracker = self

        class Logging(TrainerCallback):  # type: ignore[misc]  # transformers ships no types for it
            def on_log(
                self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
            ) -> None:
                found = {k: v for k, v in (logs or {}).items() if not SPEED.fullmatch(k)}
                tracker.log(found, state.global_step)

        return [Logging()]

    def _attempt(self, act: Callable[[Any], Any]) -> None:
        if self.client is None:
            return
        try:
            act(self.client)
        except Exception as error:  # of MLflow, its database, HTTP or Azure, none of them ours
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.client = None
        reason = public(str(error).strip().partition("\n")[0] or type(error).__name__)
        log.warning("tracking: off from here on, the training goes on without it (%s)", reason)


def flatten(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested mappings as `section.key`, values as text that a parameter can hold."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{above}{key}.")
        else:
            plain = isinstance(value, str) and value
            text = value if plain else json.dumps(value, ensure_ascii=False)
            flat[f"{above}{key}"] = text[:PARAMETER_CHARACTERS]
    return flat

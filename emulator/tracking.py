"""MLflow tracking of jobs, as azureml-mlflow asks for it: in a job, and from outside.

    environment(azure, job, experiment)    the variables that let a job log to its own run

A run of MLflow is the run of a command job here; its id is the job's name, its tags are the job's.
Parameters and metrics lie in the store below the job, artifacts in storage beside the job's logs.
Runs and experiments cannot be made over MLflow: that answers 501. A search knows one filter, by the
root or the parent of a pipeline's steps.

Addresses, and what they carry: azureml-mlflow 1.62.0 (_restclient/run_artifact, _store) with
MLflow 3, which asks below mlflow/v2.0 whatever version MLFLOW_TRACKING_URI has. Limits: "Service
limits in Azure Machine Learning", and for parameters Azure/azure-sdk-for-python issue 35685, which
has the service's words too; those for metrics are known from Microsoft's own clients.
"""

import datetime
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from emulator.azure import Azure, Settings
from emulator.execution import run_id
from emulator.http import API, WORKSPACE, Refusal, Reply, Request, Route
from emulator.store import Resource

PARAMETERS = 200
METRIC_NAMES = 50
METRIC_ROWS = 250
"""Of one metric in one request."""
TAGS, TAG_KEY, TAG_VALUE = 50, 100, 1000
TOKEN_SECONDS = 7 * 24 * 3600
"""A run's token outlives the job, so that nobody has to renew it; how long Azure's holds is not
documented."""

FILTER = re.compile(r"tags\.`?(mlflow\.(?:root|parent)RunId)`?\s*=\s*['\"]([^'\"]+)['\"]")
STATUSES = {
    "Running": "RUNNING",
    "Finalizing": "RUNNING",
    "CancelRequested": "RUNNING",
    "Completed": "FINISHED",
    "Failed": "FAILED",
    "Canceled": "KILLED",
}
"""MLflow's words for a job's status; before it runs it is SCHEDULED."""


def environment(azure: Azure, job: str, experiment: str) -> dict[str, str]:
    """What the service sets for azureml-mlflow, and for azureml-core's run context, in a job."""
    settings = azure.settings
    end = int(time.time()) + TOKEN_SECONDS
    token = azure.tokens.issue("https://ml.azure.com", settings.guid, exp=end)
    number = experiment_id(settings, experiment)
    host = settings.api.removeprefix("https://")
    return {
        "MLFLOW_TRACKING_URI": f"azureml://{host}/mlflow/v1.0{settings.workspace_id}",
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_RUN_ID": job,
        "MLFLOW_EXPERIMENT_ID": number,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "AZUREML_RUN_TOKEN": token,
        "AZUREML_RUN_TOKEN_EXPIRY": str(end),
        "AZUREML_EXPERIMENT_ID": number,
        "AZUREML_EXPERIMENT_SCOPE": f"{settings.workspace_id}/experiments/{experiment}",
        "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{settings.api}/discovery",
        "AZUREML_RUN_HISTORY_SERVICE_ENDPOINT": settings.api,
        # without it azureml-mlflow asks the control plane which clouds there are
        "AZUREML_CURRENT_CLOUD": "AzureCloud",
    }


def experiment_id(settings: Settings, name: str) -> str:
    """The same for the same name in this workspace."""
    return str(uuid.uuid5(uuid.UUID(settings.guid), name))


def note_metrics(azure: Azure, job_id: str, values: Mapping[str, float], step: int) -> None:
    """Log metrics of a run that this Azure carries out itself."""
    store, moment = azure.store, int(time.time() * 1000)
    if store.get(f"{job_id}/history/tracking") is None:
        store.put(f"{job_id}/history/tracking", {"params": {}, "metrics": {}})
    with store.changed(f"{job_id}/history/tracking") as logged:
        for key, value in values.items():
            row = {"key": key, "value": value, "timestamp": moment, "step": step}
            logged["metrics"].setdefault(key, []).append(row)


class MlflowRefusal(Refusal):
    """A refusal as the service's MLflow front words it: its envelope, and MLflow's error code."""

    def body(self) -> dict[str, Any]:
        code = "ValidationError" if self.code == "INVALID_PARAMETER_VALUE" else "UserError"
        return {
            "Error": {"Code": code, "Message": str(self), "Details": self.details},
            "ComponentName": "mlflow",
            "statusCode": self.status,
            "error_code": self.code,
        }


class Tracking:
    """The routes of MLflow and of a run's artifacts."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    def get(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET runs/get."""
        return Reply(200, {"run": self._run(self._job(request.query.get("run_id", "")))})

    def search(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST runs/search: all runs of the experiments, newest first."""
        asked = request.json()
        wanted = set(asked.get("experiment_ids") or [])
        found = [job for job in reversed(self._jobs()) if self._experiment_id(job) in wanted]
        if asked.get("order_by"):
            raise Refusal(501, "NotEmulated", "Runs are listed without an order here.")
        if filter_ := str(asked.get("filter") or ""):
            by = FILTER.fullmatch(filter_.strip())
            if by is None:
                raise Refusal(501, "NotEmulated", f"Runs are not filtered by {filter_} here.")
            found = [job for job in found if self._lineage(job).get(by[1]) == by[2]]
        most = int(asked.get("max_results") or 1000)
        return Reply(200, {"runs": [self._run(job) for job in found[:most]]})

    def experiment(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET experiments/get and experiments/get-by-name: what a job has named is there."""
        name, number = (request.query.get(f"experiment_{part}") for part in ("name", "id"))
        for job in self._jobs():
            if self._experiment_id(job) == number or _experiment(job) == name:
                found = {
                    "experiment_id": self._experiment_id(job),
                    "name": _experiment(job),
                    "artifact_location": "",
                    "lifecycle_stage": "active",
                }
                return Reply(200, {"experiment": found})
        sentence = f"Experiment {name or number} was not found."
        raise MlflowRefusal(404, "RESOURCE_DOES_NOT_EXIST", sentence)

    def metric(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET metrics/get-history: all rows of one metric, as they came."""
        job = self._job(request.query.get("run_id", ""))
        rows = self._logged(job)["metrics"].get(request.query.get("metric_key", ""), [])
        return Reply(200, {"metrics": rows})

    def log(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST runs/log-batch, or one of log-metric, log-parameter and set-tag: all or nothing."""
        given = request.json()
        job = self._job(str(given["run_id"]))
        match groups["what"].lower():
            case "log-metric":
                batch: dict[str, Any] = {"metrics": [given]}
            case "log-parameter":
                batch = {"params": [given]}
            case "set-tag":
                batch = {"tags": [given]}
            case _:
                batch = given
        tags = {tag["key"]: str(tag["value"]) for tag in batch.get("tags") or ()}
        with self._azure.store.changed(job["id"]) as kept:
            known = {**kept["properties"]["tags"], **tags}
            _check_size("Tags", known, TAGS)
            for key, value in tags.items():
                _check_size("Tags/Key", key, TAG_KEY)
                _check_size("Tags/Value", value, TAG_VALUE)
            self._log(job, batch.get("params") or (), batch.get("metrics") or ())
            kept["properties"]["tags"] = known
        return Reply(200, {})

    def logged_models(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """What MLflow 3 asks for before it downloads an artifact, and the service does not have:
        404 without a body (Azure/azure-sdk-for-python issue 44896)."""
        return Reply(404)

    def artifacts(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET a run's artifacts: its logs and what it has kept, with the paths in its folder."""
        folder = _folder(self._history_job(groups["run"]))
        names = self._azure.storage.names(self._azure.settings.artifact_container, f"{folder}/")
        return Reply(200, {"value": [_artifact(folder, n[len(folder) + 1 :]) for n in names]})

    def artifact(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET where one artifact lies: an address with a SAS."""
        folder = _folder(self._history_job(groups["run"]))
        path = request.query.get("path", "")
        if not self._is_stored(f"{folder}/{path}"):
            raise Refusal(404, "UserError", f"Artifact {path} was not found.")
        return Reply(200, self._content(folder, path))

    def new_artifacts(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST artifacts/batch/metadata: where to write them; one that is there is an error."""
        folder = _folder(self._history_job(groups["run"]))
        paths = [str(each["path"]) for each in request.json()["paths"]]
        there = {path for path in paths if self._is_stored(f"{folder}/{path}")}
        new = [path for path in paths if path not in there]
        conflict = "Resource Conflict: ArtifactId {}/{} already exists."
        return Reply(
            200,
            {
                "artifacts": {path: _artifact(folder, path) for path in new},
                "artifactContentInformation": {path: self._content(folder, path) for path in new},
                "errors": {
                    path: {"error": {"code": "UserError", "message": conflict.format(folder, path)}}
                    for path in there
                },
            },
        )

    def _jobs(self) -> list[Resource]:
        return self._azure.store.children(f"{self._azure.settings.workspace_id}/jobs")

    def _job(self, name: str) -> Resource:
        job = self._azure.store.get(f"{self._azure.settings.workspace_id}/jobs/{name}")
        if not name or job is None:
            raise MlflowRefusal(404, "RESOURCE_DOES_NOT_EXIST", f"Run {name} was not found.")
        return job

    def _history_job(self, name: str) -> Resource:
        job = self._azure.store.get(f"{self._azure.settings.workspace_id}/jobs/{name}")
        if job is None:
            raise Refusal(404, "UserError", f"Run {name} was not found.")
        return job

    def _experiment_id(self, job: Resource) -> str:
        return experiment_id(self._azure.settings, _experiment(job))

    def _lineage(self, job: Resource) -> dict[str, str]:
        """MLflow's tags of the runs above it."""
        state = self._azure.store.get(run_id(job["id"])) or {}
        tags = {"mlflow.rootRunId": str(state.get("root") or job["name"])}
        return tags | ({"mlflow.parentRunId": state["parent"]} if state.get("parent") else {})

    def _logged(self, job: Resource) -> Resource:
        """A copy of what the job has logged."""
        return self._azure.store.get(_logged_id(job)) or {"params": {}, "metrics": {}}

    def _log(self, job: Resource, params: Iterable[Resource], metrics: Iterable[Resource]) -> None:
        """Keep them all; the caller holds the store by `changed`, so that nobody comes between."""
        rows: dict[str, list[Resource]] = {}
        for metric in metrics:
            row = {"key": str(metric["key"]), "value": metric["value"]}
            row |= {part: int(metric.get(part) or 0) for part in ("timestamp", "step")}
            rows.setdefault(row["key"], []).append(row)
        for key in rows:
            _check_size("MetricV2Dto.Value/Count", rows[key], METRIC_ROWS)
        values = {str(param["key"]): str(param["value"]) for param in params}
        store = self._azure.store
        if store.get(_logged_id(job)) is None:
            store.put(_logged_id(job), {"params": {}, "metrics": {}})
        with store.changed(_logged_id(job)) as logged:
            for key, value in values.items():
                if logged["params"].get(key, value) != value:
                    sentence = f"The parameter '{key}' was logged before with another value."
                    raise MlflowRefusal(400, "INVALID_PARAMETER_VALUE", sentence)
            _check_size("Parameters", {**logged["params"], **values}, PARAMETERS)
            if len({**logged["metrics"], **rows}) > METRIC_NAMES:
                raise MlflowRefusal(400, "BAD_REQUEST", "Too many metrics for this run.")
            logged["params"].update(values)
            for key, new in rows.items():
                logged["metrics"].setdefault(key, []).extend(new)

    def _run(self, job: Resource) -> dict[str, Any]:
        """The run as MLflow's protocol has it; of each metric its last row."""
        settings, logged = self._azure.settings, self._logged(job)
        properties = job["properties"]
        state = self._azure.store.get(run_id(job["id"])) or {}
        name = str(properties.get("displayName") or job["name"])
        host = settings.api.removeprefix("https://")
        number = self._experiment_id(job)
        tags = {
            **self._lineage(job),
            "mlflow.runName": name,
            "mlflow.user": job["systemData"]["createdBy"],
            **properties["tags"],
        }
        last = [
            max(rows, key=lambda row: (row["step"], row["timestamp"]))
            for rows in logged["metrics"].values()
        ]
        return {
            "info": {
                "run_id": job["name"],
                "run_uuid": job["name"],
                "run_name": name,
                "experiment_id": number,
                "user_id": job["systemData"]["createdBy"],
                "status": STATUSES.get(str(properties["status"]), "SCHEDULED"),
                **_times(state),
                "artifact_uri": f"azureml://{host}/mlflow/v2.0{settings.workspace_id}"
                f"/experiments/{number}/runs/{job['name']}/artifacts",
                "lifecycle_stage": "active",
            },
            "data": {"metrics": last, "params": _pairs(logged["params"]), "tags": _pairs(tags)},
        }

    def _is_stored(self, name: str) -> bool:
        return name in self._azure.storage.names(self._azure.settings.artifact_container, name)

    def _content(self, folder: str, path: str) -> dict[str, str]:
        storage = self._azure.storage
        url = storage.url(self._azure.settings.artifact_container, f"{folder}/{path}")
        return {**_artifact(folder, path), "contentUri": f"{url}?{storage.sas()}"}


def _experiment(job: Resource) -> str:
    return str(job["properties"]["experimentName"])


def _logged_id(job: Resource) -> str:
    return f"{job['id']}/history/tracking"


def _folder(job: Resource) -> str:
    return f"ExperimentRun/dcid.{job['name']}"


def _artifact(folder: str, path: str) -> dict[str, str]:
    origin, _, container = folder.partition("/")
    return {
        "artifactId": f"{folder}/{path}",
        "origin": origin,
        "container": container,
        "path": path,
    }


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def _times(state: Resource) -> dict[str, int]:
    """Milliseconds since the epoch of what has begun and ended."""
    times = {"start_time": state.get("startTimeUtc"), "end_time": state.get("endTimeUtc")}
    return {
        name: int(datetime.datetime.fromisoformat(text).timestamp() * 1000)
        for name, text in times.items()
        if text
    }


def _check_size(field: str, value: Any, limit: int) -> None:
    if len(value) > limit:
        raise MlflowRefusal(
            400,
            "INVALID_PARAMETER_VALUE",
            f"A field of the entity is over the size limit. FieldName={field}, Limit={limit}, "
            f"Size={len(value)}. See https://aka.ms/azure-machine-learning-limits for service "
            "limits documentation.",
        )


def routes(azure: Azure) -> list[Route]:
    """MLflow's REST API for the workspace, and run history's artifacts."""
    tracking = Tracking(azure)
    mlflow = rf"/mlflow/v[12]\.0{WORKSPACE}/api/2\.0/mlflow"
    artifacts = rf"/history/v1\.0{WORKSPACE}/experiments/[^/]+/runs/(?P<run>[^/]+)/artifacts"
    log = r"(?P<what>log-batch|log-metric|log-parameter|set-tag)"
    return [
        Route("GET", API, rf"{mlflow}/runs/get", tracking.get),
        Route("POST", API, rf"{mlflow}/runs/search", tracking.search),
        Route("POST", API, rf"{mlflow}/runs/{log}", tracking.log),
        Route("GET", API, rf"{mlflow}/metrics/get-history", tracking.metric),
        Route("GET", API, rf"{mlflow}/experiments/get(-by-name)?", tracking.experiment),
        Route("POST", API, rf"{mlflow}/logged-models(/search)?", tracking.logged_models),
        Route("GET", API, artifacts, tracking.artifacts),
        Route("GET", API, rf"{artifacts}/contentinfo", tracking.artifact),
        Route("POST", API, rf"{artifacts}/batch/metadata", tracking.new_artifacts),
    ]

"""Run history: what became of a job, where its logs are, and where its outputs.

The status, times, error and logs come from the run record that the job's runner keeps; log URLs
carry a SAS and are read from storage, with Range where a follower goes on from the byte it has.
"""

from collections.abc import Mapping
from typing import Any

from emulator.assets import not_found
from emulator.azure import Azure
from emulator.execution import run_id
from emulator.http import API, WORKSPACE, Refusal, Reply, Request, Route
from emulator.store import Resource

TYPES = {
    "uri_folder": "UriFolder",
    "uri_file": "UriFile",
    "mltable": "MLTable",
    "custom_model": "CustomModel",
    "mlflow_model": "MLFlowModel",
    "triton_model": "TritonModel",
}
"""How the data plane calls the types of outputs."""


class History:
    """The routes of run history."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    def details(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET runs/{job}/details."""
        job, run = self._find(groups["name"])
        settings, storage = self._azure.settings, self._azure.storage
        expired = self._azure.faults.take("expired_sas", path=request.path) is not None
        query = storage.sas(expired=expired) if run["logs"] else ""
        folder = f"ExperimentRun/dcid.{job['name']}"
        logs = {
            name: f"{storage.url(settings.artifact_container, f'{folder}/{name}')}?{query}"
            for name in run["logs"]
        }
        body = {
            **self._common(job, run),
            "createdTimeUtc": job["systemData"]["createdAt"],
            "logFiles": logs,
            "inputDatasets": [],
            "outputDatasets": [],
            "warnings": [],
        }
        return Reply(200, body)

    def run(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET runs/{job}."""
        return Reply(200, self._metadata(groups["name"]))

    def data(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST rundata: the run, with its outputs as assets."""
        run = self._metadata(str(request.json()["runId"]))
        return Reply(200, {"runMetadata": run, "runDefinition": None, "jobSpecification": None})

    def children(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET runs/{job}/children: the steps of a pipeline; those of a step are below it."""
        self._find(groups["name"])
        jobs = self._azure.store.children(f"{self._azure.settings.workspace_id}/jobs")
        found = [self._metadata(job["name"]) for job in jobs if self._parent(job) == groups["name"]]
        return Reply(200, {"value": found})

    def _parent(self, job: Resource) -> str | None:
        run = self._azure.store.get(run_id(job["id"])) or {}
        return str(run["parent"]) if run.get("parent") else None

    def patch(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """PATCH runs/{job}: `hidden` archives it, tags and names are changed."""
        self._find(groups["name"])
        given = request.json()
        with self._azure.store.changed(self._job_id(groups["name"])) as job:
            properties = job["properties"]
            if "hidden" in given:
                properties["isArchived"] = bool(given["hidden"])
            for member in ("displayName", "description", "tags"):
                if given.get(member) is not None:
                    properties[member] = given[member]
        return Reply(200, self._metadata(groups["name"]))

    def _job_id(self, name: str) -> str:
        return f"{self._azure.settings.workspace_id}/jobs/{name}"

    def _find(self, name: str) -> tuple[Resource, Resource]:
        store, job_id = self._azure.store, self._job_id(name)
        job, run = store.get(job_id), store.get(run_id(job_id))
        if job is None or run is None:
            missing = not_found(job_id)
            raise Refusal(404, "UserError", f"Run {name} was not found.", details=missing.details)
        return job, run

    def _common(self, job: Resource, run: Resource) -> dict[str, Any]:
        return {
            "runId": job["name"],
            "status": run["status"],
            "startTimeUtc": run["startTimeUtc"],
            "endTimeUtc": run["endTimeUtc"],
            "error": run["error"],
            "properties": job["properties"]["properties"],
            "tags": job["properties"]["tags"],
            "target": (job["properties"].get("computeId") or "serverless").rpartition("/")[2],
            "outputs": self._outputs(job),
        }

    def _metadata(self, name: str) -> dict[str, Any]:
        job, run = self._find(name)
        properties = job["properties"]
        return {
            **self._common(job, run),
            "createdUtc": job["systemData"]["createdAt"],
            "displayName": properties.get("displayName"),
            "description": properties.get("description"),
            "dataContainerId": f"dcid.{job['name']}",
            "hidden": bool(properties.get("isArchived")),
            "runType": _type_of(job, run),
            "rootRunId": run.get("root") or job["name"],
            **({"parentRunId": run["parent"]} if run.get("parent") else {}),
        }

    def _outputs(self, job: Resource) -> dict[str, Any]:
        settings = self._azure.settings
        found = {}
        for name, output in job["properties"]["outputs"].items():
            if name == "default":
                continue
            type_of = str(output["jobOutputType"]).lower()
            kind = "models" if type_of.endswith("model") else "data"
            asset = (
                f"azureml://locations/{settings.location}/workspaces/{settings.guid}/{kind}"
                f"/azureml_{job['name']}_output_{name}/versions/1"
            )
            found[name] = {"assetId": asset, "type": TYPES[type_of]}
        return found


def _type_of(job: Resource, run: Resource) -> str:
    kind = str(job["properties"]["jobType"]).lower()
    if kind == "pipeline":
        return "azureml.PipelineRun"
    if kind == "finetuning":
        return "azureml.finetuning"
    return "azureml.StepRun" if run.get("parent") else "azureml.scriptrun"


def routes(azure: Azure) -> list[Route]:
    """Run history of the workspace, by the run's name alone and by experiment and name."""
    history = History(azure)
    base = rf"/history/v1\.0{WORKSPACE}"
    run = rf"{base}/(?:experiments/[^/]+/)?runs/(?P<name>[^/]+)"
    return [
        Route("GET", API, run, history.run),
        Route("GET", API, rf"{run}/details", history.details),
        Route("GET", API, rf"{run}/children", history.children),
        Route("PATCH", API, run, history.patch),
        Route("POST", API, rf"{base}/rundata", history.data),
    ]

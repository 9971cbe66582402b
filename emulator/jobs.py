"""Jobs: accepted, listed, cancelled, deleted. runner.py runs them.

Command jobs are read here, pipelines in pipelines.py and fine-tuning jobs in finetuning.py; other
kinds (sweeps, labelling, Spark) are refused with 501. The steps of a pipeline are jobs too, which
only those who know their names get.
"""

import re
from collections.abc import Mapping
from typing import Any

from emulator import commands, finetuning, parents, pipelines
from emulator.assets import not_found
from emulator.azure import Azure
from emulator.computes import quota_refusal
from emulator.execution import ENDED, run_id
from emulator.http import ARM, WORKSPACE, Refusal, Reply, Request, Route
from emulator.runner import Runner
from emulator.store import Resource

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
"""Name of what goes in or out; folders here are called so. The contract has that of jobs."""
MUTABLE = ("description", "displayName", "tags", "properties", "isArchived")
"""What a PUT of a job that is there changes; the rest of it is ignored."""


class Jobs:
    """The routes of jobs."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure
        self._runner = Runner(azure)

    def put(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """PUT: a new job begins (201); one of the name is answered as it stands (200)."""
        store, given = self._azure.store, dict(request.json()["properties"])
        if store.get(request.path):
            with store.changed(request.path) as job:
                job["properties"].update({k: given[k] for k in MUTABLE if given.get(k) is not None})
            return Reply(200, self._answer(request))
        kind = str(given.get("jobType", "")).lower()
        if kind not in ("command", "pipeline", "finetuning"):
            raise Refusal(501, "NotEmulated", f"Jobs of the kind {kind} are not run here.")
        if fault := self._azure.faults.take("quota", path=request.path):
            raise quota_refusal(self._azure, self._machine(kind, given), fault.cause)
        match kind:
            case "pipeline":
                properties = pipelines.accepted(self._azure, groups["name"], given)
            case "finetuning":
                properties = finetuning.accepted(self._azure, groups["name"], given)
            case _:
                properties = self._accepted(groups["name"], given)
        store.put(request.path, {"properties": properties})
        parents.begin(self._azure, request.path)
        answer = self._answer(request)
        self._runner.submit(request.path)
        return Reply(201, answer)

    def get(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET."""
        return Reply(200, self._answer(request))

    def listed(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """GET the collection, newest first: listViewType, jobType and tag are heeded."""
        view = request.query.get("listViewType", "ActiveOnly").lower()
        kind, tag = request.query.get("jobType", "").lower(), request.query.get("tag", "")
        found = []
        for job in reversed(self._azure.store.children(request.path)):
            if (self._azure.store.get(run_id(job["id"])) or {}).get("parent"):
                continue
            archived = bool(job["properties"].get("isArchived"))
            if view != "all" and archived != (view == "archivedonly"):
                continue
            if kind and job["properties"]["jobType"].lower() != kind:
                continue
            if tag and not _has_tag(job, tag):
                continue
            job["properties"] = _of_its_time(job["properties"], request)
            found.append(job)
        return Reply(200, {"value": found})

    def cancel(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """POST cancel: 202, and done when the job has ended."""
        job_id = request.path.rpartition("/")[0]
        self._shown(job_id)
        self._runner.cancel(job_id)
        headers = self._azure.operations.start(
            request.api_version, lambda: self._wait_for_end(job_id)
        )
        del headers["Azure-AsyncOperation"]  # the service answers this one with Location alone
        return Reply(202, None, headers)

    def delete(self, request: Request, groups: Mapping[str, str]) -> Reply:
        """DELETE a job that has ended; what it wrote stays in storage."""
        found = self._azure.store.get(request.path)
        if found is None:
            return Reply(204)
        if found["properties"]["status"] not in ENDED:
            name = groups["name"]
            raise Refusal(409, "UserError", f"Job {name} has not ended; cancel it before.")

        def remove() -> None:
            self._azure.store.delete(request.path)

        return Reply(202, None, self._azure.operations.start(request.api_version, remove))

    def _wait_for_end(self, job_id: str) -> None:
        self._runner.wait(job_id)

    def _shown(self, job_id: str) -> Resource:
        found = self._azure.store.get(job_id)
        if found is None:
            raise not_found(job_id)
        return found

    def _answer(self, request: Request) -> Resource:
        """The job as the request's api-version knows it."""
        found = self._shown(request.path)
        return {**found, "properties": _of_its_time(found["properties"], request)}

    def _machine(self, kind: str, given: Mapping[str, Any]) -> str:
        """What a job is to run on."""
        if kind == "pipeline":
            return pipelines.machine(self._azure, given)
        if kind == "finetuning":
            return finetuning.machine(given)
        return str((given.get("resources") or {}).get("instanceType"))

    def _accepted(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """The job as the service completes it; Refusal 400 where it cannot run."""
        inputs, outputs = given.get("inputs") or {}, given.get("outputs") or {}
        for key in (*inputs, *outputs):
            if not KEY.fullmatch(key):
                raise Refusal(400, "UserError", f"{key} is no name of an input or output.")
        commands.check(str(given["command"]), inputs, outputs)
        limits = given.get("limits") or {}
        if limits.get("timeout"):
            commands.seconds_of(limits["timeout"])
        list(commands.processes(given, 0))
        for member in ("environmentId", "codeId", "computeId"):
            if given.get(member):
                parents.must_be_there(self._azure, member, str(given[member]))
        for key, spec in inputs.items():
            uri = str(spec.get("uri") or "")
            if parents.is_ours(uri):
                parents.must_be_there(self._azure, f"input {key}", uri)
        resources = parents.given(given.get("resources"))
        return {
            "codeId": None,
            "distribution": None,
            "limits": None,
            "environmentVariables": {},
            **parents.completed(self._azure, name, given),
            "resources": {"instanceCount": 1, "shmSize": "2g", **resources},
            "inputs": inputs,
        }


def _of_its_time(properties: dict[str, Any], request: Request) -> dict[str, Any]:
    if str(properties.get("jobType", "")).lower() != "finetuning":
        return properties
    return finetuning.shown(properties, request.api_version)


def _has_tag(job: Resource, tag: str) -> bool:
    """`tag` is a tag's name, or `name=value`."""
    name, equals, value = tag.partition("=")
    tags = job["properties"].get("tags") or {}
    return name in tags and (not equals or str(tags[name]) == value)


def routes(azure: Azure) -> list[Route]:
    """Jobs of the workspace."""
    jobs = Jobs(azure)
    every = rf"{WORKSPACE}/jobs"
    one = rf"{every}/(?P<name>[^/]+)"
    return [
        Route("PUT", ARM, one, jobs.put),
        Route("GET", ARM, one, jobs.get),
        Route("GET", ARM, every, jobs.listed),
        Route("POST", ARM, rf"{one}/cancel", jobs.cancel),
        Route("DELETE", ARM, one, jobs.delete),
    ]

"""Jobs that are no command of the caller's: what pipelines and fine-tuning jobs share.

    record = Record(azure, job_id)       its status, for the resource and for run history
    with Step(record, "finetune", …) as step:
        step.write(b"…"); step.metrics({"loss": 1.5}, number=3)

A job of these kinds is carried out by programs that Azure brings, so there is nothing of the
caller's to run. Its steps are runs of their own below it, each with logs and metrics, which the
list of jobs leaves out, as the service does.
"""

import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from emulator.azure import Azure
from emulator.execution import ENDED, Ended, run_id
from emulator.http import Refusal
from emulator.nodes import NodeError
from emulator.outputs import DataError
from emulator.registries import find
from emulator.storage import locate
from emulator.store import now
from emulator.tracking import note_metrics

STD_LOG = "user_logs/std_log.txt"
KEEP_SECONDS = 1.0
"""Between two copies of a log to storage."""
ENVIRONMENT = "azureml://registries/azureml/environments/acft-hf-nlp-gpu/labels/latest"
"""Of the registry's programs."""


class Record:
    """What a job is up to, in its resource and in its run record."""

    def __init__(self, azure: Azure, job_id: str) -> None:
        self.azure = azure
        self.job_id = job_id
        self.name = job_id.rpartition("/")[2]
        self.canceled = threading.Event()
        self._status = threading.Lock()
        self._over = False

    def cancel(self) -> None:
        """Ask for its end; one that has just ended stays as it is."""
        with self._status:
            if not self._over:
                self.canceled.set()
                self._keep("CancelRequested")

    def note(self, status: str, **record: Any) -> None:
        """Keep the status, unless the job is to be cancelled, and what else history is to say."""
        with self._status:
            if self.canceled.is_set() and status not in ENDED:
                return
            self._over = status in ENDED
            self._keep(status, **record)

    def end(self, work: Callable[[], None]) -> None:
        """Do the work and keep how it ended."""
        error: dict[str, Any] | None = None
        try:
            work()
            status = "Completed"
        except Ended as end:
            status = end.status
            error = error_of(end.code, str(end)) if end.code else None
        except Exception as bug:
            self.azure.journal.problem(f"job {self.name}: {traceback.format_exc()}")
            status, error = "Failed", error_of("SystemError", repr(bug))
        self.note(status, endTimeUtc=now(), error=error)

    def look_for_cancel(self) -> None:
        if self.canceled.is_set():
            raise Ended("Canceled")

    def _keep(self, status: str, **record: Any) -> None:
        with suppress(KeyError), self.azure.store.changed(run_id(self.job_id)) as run:
            run.update(status=status, **record)
        with suppress(KeyError), self.azure.store.changed(self.job_id) as job:
            job["properties"]["status"] = status


class Log:
    """One log file of a run, copied to storage as it grows."""

    def __init__(self, azure: Azure, job_id: str, name: str = STD_LOG) -> None:
        self._azure = azure
        self._id = job_id
        self._name = name
        self._text = b""
        self._kept = 0.0

    def write(self, text: bytes) -> None:
        self._text += text
        if time.monotonic() - self._kept >= KEEP_SECONDS:
            self.keep()

    def line(self, text: str) -> None:
        self.write(f"{text}\n".encode())

    def keep(self) -> None:
        self._kept = time.monotonic()
        container = self._azure.settings.artifact_container
        folder = f"ExperimentRun/dcid.{self._id.rpartition('/')[2]}"
        self._azure.storage.write(container, f"{folder}/{self._name}", self._text)
        with suppress(KeyError), self._azure.store.changed(run_id(self._id)) as run:
            run["logs"][self._name] = len(self._text)


class Step:
    """A run below a job (or below another step): begun on entering, ended on leaving."""

    def __init__(
        self,
        root: Record,
        parent: str,
        title: str,
        *,
        kind: str = "Command",
        component: str | None = None,
        compute: str | None = None,
        resources: Mapping[str, Any] | None = None,
    ) -> None:
        """`parent` is the name of the run above it."""
        azure, store = root.azure, root.azure.store
        self.name = str(uuid.uuid4())
        self.job_id = f"{azure.settings.workspace_id}/jobs/{self.name}"
        above = store.get(root.job_id)
        if above is None:
            raise KeyError(root.job_id)
        properties: dict[str, Any] = {
            "jobType": kind,
            "displayName": title,
            "description": None,
            "experimentName": above["properties"]["experimentName"],
            "isArchived": False,
            "componentId": component,
            "computeId": compute,
            "tags": {},
            "properties": {
                "azureml.rootpipelinerunid": root.name,
                "azureml.pipelinerunid": parent,
                "azureml.moduleName": title,
                "azureml.runsource": "azureml.StepRun",
                "azureml.nodeid": self.name[:8],
                "StepType": "PythonScriptStep" if kind == "Command" else "SubGraphCloudStep",
            },
            "inputs": {},
            "outputs": default_output(self.name),
            "services": services(azure, self.name),
            "status": "NotStarted",
        }
        if kind == "Command":
            properties |= {
                "command": f"python {title}.py",
                "environmentId": ENVIRONMENT,
                "resources": dict(resources or {}),
            }
        else:
            properties |= {"jobs": {}, "settings": {}}
        store.put(self.job_id, {"properties": properties})
        begin(azure, self.job_id, parent=parent, root=root.name)
        self.record = Record(azure, self.job_id)
        self.log = Log(azure, self.job_id)
        self._azure = azure

    def __enter__(self) -> Self:
        self.record.note("Running", startTimeUtc=now())
        return self

    def __exit__(self, kind: Any, problem: BaseException | None, trace: Any) -> None:
        self.log.keep()
        status, error = "Completed", None
        if isinstance(problem, Ended):
            status = problem.status
            error = error_of(problem.code, str(problem)) if problem.code else None
        elif problem is not None:
            status, error = "Failed", error_of("SystemError", repr(problem))
        self.record.note(status, endTimeUtc=now(), error=error)

    def metrics(self, values: Mapping[str, float], number: int = 0) -> None:
        note_metrics(self._azure, self.job_id, values, number)

    def output(self, name: str, kind: str, uri: str) -> None:
        """Say where an output of it lies."""
        with self._azure.store.changed(self.job_id) as job:
            job["properties"]["outputs"][name] = {
                "jobOutputType": kind,
                "mode": "ReadWriteMount",
                "uri": uri,
            }


def begin(azure: Azure, job_id: str, *, parent: str | None = None, root: str | None = None) -> None:
    """The run record of a new job."""
    record = {"status": "NotStarted", "startTimeUtc": None, "endTimeUtc": None, "error": None}
    above = {"parent": parent, "root": root} if parent else {}
    azure.store.put(run_id(job_id), {**record, **above, "submitted": now(), "logs": {}})


def error_of(code: str, message: str) -> dict[str, Any]:
    """As run history tells it (runhistory's ErrorResponse)."""
    return {
        "error": {"code": "UserError", "message": message, "innerError": {"code": code}},
        "time": now(),
    }


def given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is given and not null."""
    return {key: value for key, value in (values or {}).items() if value is not None}


def completed(azure: Azure, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A job of any kind as the service completes it, but for what is its kind's own."""
    return {
        "description": None,
        "displayName": name,
        "experimentName": "Default",
        "isArchived": False,
        "computeId": None,
        "componentId": None,
        "tags": {},
        "properties": {},
        **given(asked),
        "outputs": outputs(azure, name, asked.get("outputs") or {}),
        "status": "Starting",
        "services": services(azure, name),
    }


def outputs(azure: Azure, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs with their places; Refusal 400 where one is in no datastore of the workspace."""
    found: dict[str, Any] = {}
    for key, spec in asked.items():
        found[key] = {"mode": "ReadWriteMount", **given(spec)}
        uri = found[key].get("uri") or (
            f"azureml://datastores/workspaceblobstore/paths/azureml/{name}/{key}/"
        )
        uri = uri.replace("${{name}}", name).replace("${{output_name}}", key)
        try:
            locate(uri, azure.settings, azure.store)
        except KeyError:
            raise Refusal(400, "UserError", f"Output {key}: there is no {uri}.") from None
        found[key]["uri"] = uri
    return found | default_output(name)


def default_output(name: str) -> dict[str, Any]:
    """Where a run's own artifacts lie."""
    return {
        "default": {
            "jobOutputType": "uri_folder",
            "mode": "ReadWriteMount",
            "uri": f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{name}",
        }
    }


def services(azure: Azure, name: str) -> dict[str, Any]:
    """Where a job is tracked and shown."""
    settings = azure.settings
    tracking = f"azureml://{settings.api.removeprefix('https://')}/mlflow/v1.0"
    studio = f"https://ml.azure.com/runs/{name}?wsid={settings.workspace_id}"
    return {
        "Tracking": _service("Tracking", f"{tracking}{settings.workspace_id}?"),
        "Studio": _service("Studio", studio),
    }


def _service(kind: str, endpoint: str) -> dict[str, Any]:
    return {
        "jobServiceType": kind,
        "endpoint": endpoint,
        "port": None,
        "status": None,
        "errorMessage": None,
        "properties": None,
        "nodes": None,
    }


def must_be_there(azure: Azure, what: str, asset_id: str) -> None:
    """Refusal 400 unless the id names what this Azure has: its own, or a registry's."""
    asset_id = asset_id.removeprefix("azureml:") if "/subscriptions/" in asset_id else asset_id
    if asset_id.rpartition("/")[2].lower() == "serverless" and "/computes/" in asset_id:
        return
    if asset_id.startswith("/subscriptions/") and azure.store.get(asset_id):
        return
    if asset_id.startswith("azureml://registries/") and find(azure, asset_id):
        return
    raise Refusal(400, "UserError", f"{what}: {asset_id} was not found.")


def is_ours(uri: str) -> bool:
    """Whether it names an asset, rather than a place in storage."""
    return uri.startswith(("/subscriptions/", "azureml:/subscriptions/", "azureml://registries/"))


def fetch_rows(azure: Azure, name: str, uri: str, folder: Path) -> Path:
    """One file of rows, downloaded; DataError where there is not exactly one."""
    try:
        container, prefix = locate(uri, azure.settings, azure.store)
        files = azure.storage.download(container, prefix, folder)
    except KeyError:
        files = []
    if len(files) != 1:
        raise DataError(f"Input {name}: {uri} holds {len(files)} files, where one was expected.")
    return files[0]


def count(rows: Path) -> int:
    """How many rows a file has."""
    with rows.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def pull(azure: Azure, job_id: str, image: str) -> None:
    """Have the image of a job; Ended with the service's sentence where that fails."""
    try:
        if fault := azure.faults.take("image_pull", path=job_id):
            raise NodeError(fault.cause or f"manifest for {image} not found.")
        azure.nodes.pull(image)
    except NodeError as error:
        sentence = f"Failed to pull Docker image {image}: {error}"
        raise Ended("Failed", "ImagePullFailure", sentence) from error


def upload(azure: Azure, folder: Path, uri: str) -> int:
    """Copy a folder to a place in storage; how many files."""
    container, prefix = locate(uri, azure.settings, azure.store)
    return azure.storage.upload(folder, container, prefix)

"""What a job or a registered model left, on this machine: verified, and never zero files.

    output(cloud, "tiny-ja-0123456789", "model")           # -> azureml://… of a job's output
    fetch(cloud, uri, Path("here"))                        # -> the files
    results(cloud, job, "tiny-ja", Path("outputs"))        # -> outputs/tiny-ja/<run id>

The SDK's own jobs.download skips or guesses outputs and calls zero files a success, so it is not
used.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.azure.blobs import DATASTORE, Blob, Datastore, locate, uri
from scripts.azure.client import Cloud, NotFound
from scripts.azure.history import HISTORY_API
from scripts.errors import CloudError

BESIDES = ("checkpoints/", "weights/")
"""What only an unfinished run needs."""


def output(cloud: Cloud, job: str, name: str) -> str:
    """Where the output `name` of the job lies, as an azureml:// URI of a datastore.

    From the job's own description, else from run history, else where Azure ML puts outputs that no
    path was given for. CloudError where the job has no such output.
    """
    outputs = properties(cloud, job).get("outputs") or {}
    if name not in outputs:
        raise CloudError(
            f"job {job} has no output {name}; it has: {', '.join(sorted(outputs)) or 'none'}."
        )
    return (
        outputs[name].get("uri")
        or _from_history(cloud, job, name)
        or uri(f"azureml/{job}/{name}", DATASTORE)
    )


def properties(cloud: Cloud, job: str) -> dict[str, Any]:
    """The job as the service describes it; NotFound where there is none."""
    found = cloud.rest.get(f"{cloud.workspace.id}/jobs/{job}", "2024-01-01-preview")
    return dict(found["properties"])


def _from_history(cloud: Cloud, job: str, name: str) -> str | None:
    """The place of the asset that the job's output became; None where history knows none."""
    base = f"{cloud.workspace.api}/history/v1.0{cloud.workspace.id}"
    run = cloud.rest.post(f"{base}/rundata", {"runId": job, "selectRunMetadata": True}, HISTORY_API)
    made = ((run.get("runMetadata") or {}).get("outputs") or {}).get(name)
    if not made or "/data/" not in made["assetId"]:
        return None
    asset = made["assetId"]
    data = f"{cloud.workspace.api}/data/v1.0{cloud.workspace.id}/dataversion"
    resolved = cloud.rest.post(f"{data}/batchGetResolvedUris", {"values": [asset]})
    place = (resolved.get("values") or {}).get(asset)
    return str(place["uri"]) if place else None


def files(cloud: Cloud, place: str) -> list[Blob]:
    """What lies at an azureml:// URI."""
    datastore, path = locate(place)
    return Datastore(cloud, datastore).listed(path)


def fetch(
    cloud: Cloud, place: str, folder: Path, *, keep: Callable[[str], bool] = lambda name: True
) -> list[Path]:
    """Download what lies at an azureml:// URI; see Datastore.download for its errors."""
    datastore, path = locate(place)
    return Datastore(cloud, datastore).download(path, folder, keep=keep)


def results(cloud: Cloud, job: str, recipe: str, outputs: Path) -> Path:
    """Download the job's finished run to `outputs`/recipe/<run id>; the folder.

    `latest` points to it then, so that the local verbs serve it. CloudError where no run finished.
    """
    datastore, path = locate(output(cloud, job, "runs"))
    store = Datastore(cloud, datastore)
    names = [blob.name for blob in store.listed(f"{path.rstrip('/')}/{recipe}")]
    runs = {name.split("/")[0] for name in names if name.count("/") == 1}
    finished = sorted(run for run in runs - {"latest"} if f"{run}/metrics.json" in names)
    if not finished:
        raise CloudError(
            f"job {job} left no finished run of {recipe}, so nothing was downloaded: "
            f"make cloud-logs JOB={job}"
        )
    run = finished[-1]
    folder = outputs / recipe / run
    # metrics.json says that a run is finished, so it comes last
    last = "metrics.json"
    prefix = f"{path.rstrip('/')}/{recipe}/{run}"
    store.download(prefix, folder, keep=lambda n: n != last and not n.startswith(BESIDES))
    store.download(prefix, folder, keep=lambda n: n == last)
    json.loads((folder / last).read_text(encoding="utf-8"))
    link = folder.parent / "latest"
    if link.is_symlink() or not link.exists():
        new = folder.parent / f".latest-{run}"
        new.unlink(missing_ok=True)
        new.symlink_to(run)
        new.replace(link)
    return folder


def model(cloud: Cloud, name: str, version: str, folder: Path) -> list[Path]:
    """Download a registered model."""
    return fetch(cloud, model_uri(cloud, name, version), folder)


def model_uri(cloud: Cloud, name: str, version: str) -> str:
    """Where a registered model lies."""
    from scripts.azure import retry

    try:
        found = retry.call(
            f"read model {name}:{version}", lambda: cloud.ml.models.get(name, version)
        )
    except NotFound:
        raise CloudError(
            f"there is no model {name}:{version} in the workspace: make cloud-train"
        ) from None
    return str(found.path)

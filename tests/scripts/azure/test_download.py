import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.server import Server
from scripts.azure import blobs, client, download
from scripts.azure.blobs import Datastore
from scripts.azure.client import Cloud
from scripts.errors import CloudError, MachineError
from tests import local_azure as local

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cloud(local_azure: Server) -> Iterator[Cloud]:
    with local.environment(local_azure):
        yield client.connect()


@pytest.fixture
def sent(cloud: Cloud, tmp_path: Path) -> str:
    """Three files in the datastore; their prefix."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "weights.bin").write_bytes(os.urandom(5_000_000))
    (source / "sub/語.json").write_text("{}")
    (source / "empty").touch()
    files = {p.relative_to(source).as_posix(): blobs.read(p) for p in source.rglob("*.*")}
    files["empty"] = blobs.read(source / "empty")
    prefix = f"tests/{tmp_path.name}"
    assert Datastore(cloud).upload(files, prefix) == 5_000_002
    return prefix


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_was_sent_comes_back_byte_for_byte(cloud: Cloud, tmp_path: Path, sent: str) -> None:
    download.fetch(cloud, blobs.uri(sent), tmp_path / "here")
    assert contents(tmp_path / "here") == contents(tmp_path / "source")


def test_only_what_is_missing_or_damaged_is_fetched_again(
    cloud: Cloud, tmp_path: Path, sent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store, here = Datastore(cloud), tmp_path / "here"
    store.download(sent, here)
    (here / "weights.bin").write_bytes(os.urandom(5_000_000))  # as long as it should be
    store.download(sent, here)
    assert contents(here) == contents(tmp_path / "source")
    assert "(2 were here)" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["tests/nothing", "tests/noth"])
def test_nothing_to_download_is_never_a_success(
    cloud: Cloud, tmp_path: Path, local_azure: Server, prefix: str
) -> None:
    container = local_azure.azure.settings.blob_container
    local_azure.azure.storage.write(container, "tests/nothing-but-a-neighbour/x", b"x")
    with pytest.raises(CloudError, match=r"holds no file, so nothing was downloaded"):
        Datastore(cloud).download(prefix, tmp_path / "here")


def test_a_file_whose_bytes_are_not_its_md5_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    from azure.storage.blob import ContentSettings

    store = Datastore(cloud)
    wrong = ContentSettings(content_md5=bytearray(16))
    blob = store._connect().upload_blob("tests/damaged/model.bin", b"weights", overwrite=True)
    blob.set_http_headers(content_settings=wrong)
    with pytest.raises(CloudError, match=r"model\.bin came with 7 bytes, not as it lies there"):
        store.download("tests/damaged", tmp_path / "here")
    assert contents(tmp_path / "here") == {}


def test_a_name_that_leads_out_of_the_folder_is_refused(
    cloud: Cloud, tmp_path: Path, local_azure: Server
) -> None:
    class Container:
        def list_blobs(self, **_: Any) -> list[Any]:
            from azure.storage.blob import BlobProperties

            return [BlobProperties(name="a/../../etc/passwd")]

    container: Any = Container()
    with pytest.raises(CloudError, match="outside of the folder"):
        list(blobs._blobs(container, "a"))


def test_what_does_not_fit_is_told_before_anything_is_fetched(
    cloud: Cloud, tmp_path: Path, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((1, 1, 1, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(MachineError, match=r"needs 5\.0 MB for \d files, and 0\.0 MB are free"):
        Datastore(cloud).download(sent, tmp_path / "here")


@pytest.mark.parametrize("kind", ["upload", "download"])
def test_access_that_has_ended_is_asked_for_again(
    cloud: Cloud, tmp_path: Path, sent: str, local_azure: Server, kind: str
) -> None:
    local_azure.azure.faults.add(Fault(kind="expired_sas", path="workspaceblobstore"))
    store = Datastore(cloud)
    if kind == "upload":
        source = tmp_path / "source/weights.bin"
        store.upload({"again.bin": blobs.read(source)}, sent)
    assert len(store.download(sent, tmp_path / "here")) == (4 if kind == "upload" else 3)


def test_a_place_in_no_datastore_is_named() -> None:
    with pytest.raises(CloudError, match="lies in no datastore"):
        blobs.locate("https://example.org/x")
    long = "azureml://subscriptions/s/resourceGroups/g/workspaces/w/datastores/d/paths/a/b"
    assert blobs.locate(long) == ("d", "a/b")


class Answers:
    """A job's description and what run history says of it."""

    def __init__(self, outputs: dict[str, Any], history: Any = None) -> None:
        self._outputs = outputs
        self._history = history or {}

    def get(self, path: str, *_: Any) -> Any:
        return {"properties": {"outputs": self._outputs}}

    def post(self, path: str, body: Any, *_: Any) -> Any:
        if path.endswith("/rundata"):
            return {"runMetadata": {"outputs": self._history}}
        return {"values": {body["values"][0]: {"uri": "azureml://datastores/d/paths/there"}}}


DATA = "azureml://locations/eastus/workspaces/1/data/azureml_j_output_model/versions/1"


@pytest.mark.parametrize(
    ("outputs", "history", "place"),
    [
        (
            {"model": {"uri": "azureml://datastores/d/paths/x"}},
            {},
            "azureml://datastores/d/paths/x",
        ),
        ({"model": {}}, {"model": {"assetId": DATA}}, "azureml://datastores/d/paths/there"),
        ({"model": {}}, {}, "azureml://datastores/workspaceblobstore/paths/azureml/j/model"),
    ],
    ids=["the job says it", "history says it", "nobody says it"],
)
def test_an_output_is_found_where_it_is(
    cloud: Cloud, outputs: dict[str, Any], history: dict[str, Any], place: str
) -> None:
    import dataclasses

    rest: Any = Answers(outputs, history)
    assert download.output(dataclasses.replace(cloud, rest=rest), "j", "model") == place


def test_an_output_that_the_job_does_not_have_is_named(cloud: Cloud) -> None:
    import dataclasses

    rest: Any = Answers({"runs": {}})
    with pytest.raises(CloudError, match="job j has no output model; it has: runs"):
        download.output(dataclasses.replace(cloud, rest=rest), "j", "model")


def test_the_newest_finished_run_comes_with_its_metrics_last_and_latest_points_to_it(
    cloud: Cloud, tmp_path: Path, local_azure: Server
) -> None:
    import dataclasses

    write, container = local_azure.azure.storage.write, local_azure.azure.settings.blob_container
    base = f"tests/{tmp_path.name}/runs"
    for run in ("20260101-1", "20260102-2"):
        write(container, f"{base}/tiny/{run}/metrics.json", json.dumps({"run": run}).encode())
        write(container, f"{base}/tiny/{run}/merged/config.json", b"{}")
        write(container, f"{base}/tiny/{run}/checkpoints/1/big", b"x")
    write(container, f"{base}/tiny/20260103-3/recipe.yaml", b"unfinished")
    rest = cloud.rest

    class WithJob(Answers):
        def get(self, path: str, *version: Any) -> Any:
            return super().get(path) if "/jobs/" in path else rest.get(path, *version)

        def post(self, path: str, body: Any, *version: Any) -> Any:
            return rest.post(path, body, *version)

    answers: Any = WithJob({"runs": {"uri": blobs.uri(base)}})
    seen = dataclasses.replace(cloud, rest=answers)
    folder = download.results(seen, "job", "tiny", tmp_path / "outputs")
    assert folder == tmp_path / "outputs/tiny/20260102-2"
    assert set(contents(folder)) == {"metrics.json", "merged/config.json"}
    assert (tmp_path / "outputs/tiny/latest").resolve() == folder
    with pytest.raises(CloudError, match="left no finished run of other"):
        download.results(seen, "job", "other", tmp_path / "outputs")

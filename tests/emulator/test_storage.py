"""Bytes: where URIs lead, and Azurite as the account of the workspace."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from emulator.azure import Settings
from emulator.azurite import AzuriteError, find
from emulator.server import Server
from emulator.storage import locate
from tests.local_azure import session
from tests.tree import ROOT
from tests.waiting import until

BLOBS = Settings(folder=Path()).blob_container
STORE = "datastores/workspaceblobstore/paths"


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        (f"azureml://{STORE}/a/b.jsonl", (BLOBS, "a/b.jsonl")),
        (f"azureml://subscriptions/s/resourcegroups/g/workspaces/w/{STORE}/a/", (BLOBS, "a/")),
        (
            "azureml://datastores/workspaceartifactstore/ExperimentRun/x",
            ("azureml", "ExperimentRun/x"),
        ),
        ("https://acct.blob.core.windows.net:443/box/a/b?sv=1&sig=2", ("box", "a/b")),
        ("https://acct.blob.core.windows.net/box", ("box", "")),
        ("{workspace}/data/train/versions/1", (BLOBS, "rows")),
        ("azureml:{workspace}/data/train/versions/1", (BLOBS, "rows")),
    ],
)
def test_a_uri_leads_to_container_and_blob(bare: Server, uri: str, found: tuple[str, str]) -> None:
    azure = bare.azure
    workspace = azure.settings.workspace_id
    azure.store.put(
        f"{workspace}/data/train/versions/1",
        {"properties": {"dataUri": f"azureml://{STORE}/rows"}},
    )
    assert locate(uri.format(workspace=workspace), azure.settings, azure.store) == found


@pytest.mark.parametrize(
    "uri",
    [
        "azureml://datastores/nothing/paths/a",
        "/subscriptions/s/data/none/versions/1",
        "https://example.com/a/b",
    ],
)
def test_what_leads_nowhere_is_a_key_error(bare: Server, uri: str) -> None:
    with pytest.raises(KeyError):
        locate(uri, bare.azure.settings, bare.azure.store)


def test_an_azurite_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEPORT_AZURITE", str(tmp_path / "azurite"))
    with pytest.raises(AzuriteError, match="HOMEPORT_AZURITE names"):
        find(tmp_path)
    monkeypatch.delenv("HOMEPORT_AZURITE")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AzuriteError, match="Azurite needs Node"):
        find(tmp_path)


@pytest.mark.slow
def test_blobs_are_written_found_and_read(local_azure: Server, tmp_path: Path) -> None:
    storage = local_azure.azure.storage
    storage.create_container("core")
    storage.create_container("core")
    storage.write("core", "data/a", b"1")
    storage.write("core", "data/a", iter([b"2", b"3"]))
    storage.write("core", "data/in/b", b"x" * 9_000_000)
    storage.write("core", "data-2/c", b"")
    assert storage.names("core", "data/") == ["data/a", "data/in/b"]
    assert storage.read("core", "data/a") == b"23"
    with pytest.raises(KeyError):
        storage.read("core", "nothing")
    files = storage.download("core", "data", tmp_path / "out")
    assert sorted(file.relative_to(tmp_path / "out").as_posix() for file in files) == ["a", "in/b"]
    assert storage.download("core", "data/a", tmp_path / "one") == [tmp_path / "one" / "a"]
    assert storage.download("core", "nothing", tmp_path / "none") == []
    assert storage.upload(tmp_path / "out", "core", "again") == 2
    assert len(storage.read("core", "again/in/b")) == 9_000_000
    storage.delete("core", "data/a")
    storage.delete("core", "data/a")
    assert storage.names("core", "data/") == ["data/in/b"]


@pytest.mark.slow
def test_a_blob_does_not_leave_the_folder(
    local_azure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = local_azure.azure.storage
    storage.create_container("outside")
    storage.write("outside", "data/x", b"1")
    monkeypatch.setattr(storage, "names", lambda *_: ["data/../../evil"])
    with pytest.raises(ValueError, match="lies outside"):
        storage.download("outside", "data", tmp_path / "in")


@pytest.mark.slow
@pytest.mark.parametrize(("expired", "status"), [(False, 200), (True, 403)])
def test_a_sas_opens_the_account_until_it_ends(
    local_azure: Server, expired: bool, status: int
) -> None:
    storage = local_azure.azure.storage
    storage.create_container("signed")
    storage.write("signed", "a b/ü", b"1")
    url = f"{storage.url('signed', 'a b/ü')}?{storage.sas(expired=expired)}"
    assert session(local_azure, "").get(url).status_code == status


@pytest.mark.slow
def test_no_azurite_outlives_an_emulator_that_was_killed(
    local_azure: Server, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "emulator", "--folder", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        assert process.stdout
        try:
            word, _, url = process.stdout.readline().strip().partition(" ")
            assert word == "ready"
            assert requests.get(f"{url}/health", timeout=5).json()["status"] == "ok"
            assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
            assert f"HTTPS_PROXY={url}" in (tmp_path / "env").read_text()
        finally:
            process.send_signal(signal.SIGKILL)
    until(lambda: not _runs(str(tmp_path)))


def _runs(word: str) -> bool:
    """Whether a process has `word` on its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in line and int(folder.name) != os.getpid():
            return True
    return False

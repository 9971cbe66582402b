"""Rows come from train's data code, as they stand where they have pictures, or from Azure."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.server import Server
from scripts.azure.blobs import Datastore, read
from scripts.azure.client import Cloud, connect
from scripts.azure.openai import remote, rows
from scripts.azure.openai.accounts import find
from scripts.azure.openai.client import connect as service_of
from scripts.azure.routes import Work, azure_openai
from scripts.errors import UsageError
from tests.emulator.openai.small_tuning import SmallTuning
from tests.local_azure import environment
from tests.local_azure import local_azure as whole_azure
from tests.scripts.azure.openai.conftest import RECIPE, write_rows
from train.recipe import load


def test_rows_are_made_checked_and_counted(cloud: Cloud) -> None:
    data = rows.gather(cloud, load(RECIPE), RECIPE)
    assert data.line == "12 train; 10 validation"
    assert data.tokens.total == -(-data.facts["train"].bytes // 3)
    assert data.hash == rows.gather(cloud, load(RECIPE), RECIPE).hash


def test_rows_with_pictures_are_taken_as_they_stand(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "?"}, picture]},
            {"role": "assistant", "content": "a tree"},
        ]
    }
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join([json.dumps(row)] * 10), encoding="utf-8")
    monkeypatch.setattr(rows, "CACHE", tmp_path / "cache")
    data = rows.gather(cloud, load(RECIPE, [f"data.train={own}"]), RECIPE)
    assert data.line == "10 train, 10 with pictures"
    assert data.here["train"].read_bytes().startswith(b"\xef\xbb\xbf")
    assert rows.source_bytes(load(RECIPE, [f"data.train={own}"])) == own.stat().st_size


def test_rows_here_and_rows_in_azure_are_not_mixed(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = remote.Remote(place="p", url="u", bytes=1, version="v")
    monkeypatch.setattr(remote, "find", lambda cloud, place, key: found)
    mixed = load(RECIPE, ["data.train=https://x/y", "data.validation=data/rehearsal.jsonl"])
    with pytest.raises(UsageError, match="both be here or both in Azure"):
        rows.gather(cloud, mixed, RECIPE)


def test_the_size_of_what_is_elsewhere_is_not_known() -> None:
    for place in ("https://x/y.jsonl", "azureml:rows:1", "hf://a/b@c"):
        assert rows.source_bytes(load(RECIPE, [f"data.train={place}"])) is None


@pytest.fixture
def stored(tuning: SmallTuning, tmp_path: Path) -> Iterator[Server]:
    """A local Azure with a storage that can be reached."""
    with whole_azure(tmp_path / "azure", hurry=0.1) as server, environment(server):
        yield server
        assert server.report()["problems"] == []


@pytest.mark.slow
def test_rows_in_a_datastore_are_imported_by_the_service(
    stored: Server, tuning: SmallTuning, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = connect()
    path = write_rows(tmp_path / "mine.jsonl")
    Datastore(cloud).upload({"mine.jsonl": read(path)}, "rows")
    place = "azureml://datastores/workspaceblobstore/paths/rows/mine.jsonl"
    recipe = load(RECIPE, [f"data.train={place}"])
    work = Work(cloud=cloud, recipe=recipe, path=RECIPE)
    done = azure_openai.train(work)
    told = capsys.readouterr().err
    assert "not looked at" in told and "imported from https://" in told
    assert "sig=" not in told
    assert len(tuning.rows[0].splitlines()) == 12
    assert azure_openai.train(work).job == done.job
    with service_of(find(cloud, recipe)) as service:
        assert len(list(service.files.list(purpose="fine-tune"))) == 1

    url = remote.find(cloud, place, "data.train").url
    web = dataclasses.replace(work, recipe=load(RECIPE, [f"data.train={url}"]))
    assert azure_openai.train(web).status == "succeeded"
    missing = load(RECIPE, [f"data.train={url.replace('mine', 'yours')}"])
    with pytest.raises(UsageError, match="answers 404"):
        azure_openai.train(dataclasses.replace(work, recipe=missing))
    with pytest.raises(UsageError, match="holds 0 files"):
        remote.find(cloud, place.replace("mine", "yours"), "data.train")

"""Files go up once, large ones by parts that are gone on with."""

import json
from pathlib import Path

import pytest

from emulator.faults import Fault
from emulator.openai import accounts as resources
from emulator.server import Server
from scripts.azure.openai import files
from scripts.azure.openai.accounts import Account
from scripts.azure.openai.client import connect
from scripts.azure.retry import Refused
from scripts.console import say
from scripts.errors import CloudError
from tests.scripts.azure.openai.conftest import write_rows


def stored(server: Server) -> list[bytes]:
    """What lies on the resource."""
    there = resources.of(server.azure)["homeportrehearsal"].files.values()
    return [file.path.read_bytes() for file in there]


def test_the_same_rows_are_sent_once(azure: Server, home: Account, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    with connect(home) as service:
        first = files.wait(service, files.upload(service, home, "homeport-x-train-1.jsonl", path))
        second = files.upload(service, home, "homeport-x-train-1.jsonl", path)
        assert first.id == second.id
        assert (first.status, first.ours, first.bytes) == ("processed", True, path.stat().st_size)
        files.delete(service, first.id)
        files.delete(service, first.id)
        assert files.listed(service) == []


def test_a_large_file_goes_by_parts_and_goes_on_after_a_break(
    azure: Server,
    home: Account,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 40)
    size = path.stat().st_size // 4 + 1
    monkeypatch.setattr("scripts.azure.openai.client.TRIES_AGAIN", 0)

    def send() -> files.File:
        with connect(home) as service:
            return files.upload(
                service, home, "big.jsonl", path, whole=100, part=size, cache=tmp_path / "cache"
            )

    def break_then(line: str) -> None:
        say(line)
        if line.endswith(" 50 %"):  # the third part is not taken
            azure.azure.faults.add(Fault(kind="status", path="/parts$", status=503))

    monkeypatch.setattr(files, "say", break_then)
    with pytest.raises(CloudError, match="503"):
        send()
    [notes] = (tmp_path / "cache/uploads").iterdir()
    assert len(json.loads(notes.read_text())["parts"]) == 2
    monkeypatch.setattr(files, "say", say)
    made = send()
    assert "goes on after 2 parts" in capsys.readouterr().err
    assert not list((tmp_path / "cache/uploads").iterdir())
    assert stored(azure) == [path.read_bytes()]
    assert made.name == "big.jsonl"


@pytest.mark.slow
def test_an_upload_that_the_service_has_forgotten_is_begun_anew(
    azure: Server, home: Account, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 40)
    notes = tmp_path / "notes.json"
    known = {"id": "upload_gone", "expires": 4e9, "size": 500, "parts": []}
    notes.write_text(json.dumps(known))
    with connect(home) as service:
        with pytest.raises(Refused):
            files._by_parts(service, "big.jsonl", path, "", 500, notes)
        assert not notes.exists()


def test_what_expires_soon_or_has_other_parts_is_not_gone_on_with(tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    assert files._noted(notes, 5) == {}
    notes.write_text("{")
    assert files._noted(notes, 5) == {}
    notes.write_text(json.dumps({"id": "u", "expires": 4e9, "size": 5, "parts": ["p"]}))
    assert files._noted(notes, 5)["id"] == "u"
    assert files._noted(notes, 6) == {}
    notes.write_text(json.dumps({"id": "u", "expires": 1, "size": 5, "parts": ["p"]}))
    assert files._noted(notes, 5) == {}


@pytest.mark.slow
def test_the_reason_of_a_refusal_is_told(azure: Server, home: Account, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", bom=False)
    with connect(home) as service:
        file = files.upload(service, home, "homeport-x.jsonl", path)
        with pytest.raises(CloudError, match="byte-order mark"):
            files.wait(service, file)
        assert files.find(service, "homeport-x.jsonl") is None  # the next try sends it anew


def test_the_name_holds_the_content() -> None:
    name = files.name_of("azure-openai-ja", "train", "0123456789abcdef")
    assert name == "homeport-azure-openai-ja-train-0123456789ab.jsonl"

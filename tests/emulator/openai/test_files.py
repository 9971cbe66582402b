"""Files of an Azure OpenAI resource: what is looked at, parts, imports."""

import time

import pytest

from emulator.openai import files
from emulator.server import Server
from tests.emulator.openai.conftest import AUDIENCE, Asking, rows_of
from tests.emulator.openai.small_tuning import SmallTuning
from tests.local_azure import session


def test_a_file_is_pending_then_processed_and_comes_back_as_it_went(home: Asking) -> None:
    file_id = home.upload(rows_of())
    shown = home.get(f"files/{file_id}")
    assert (shown["filename"], shown["purpose"], shown["bytes"]) == (
        "rows.jsonl",
        "fine-tune",
        len(rows_of()),
    )
    assert home.data.get(f"{home.base}/files/{file_id}/content").content == rows_of()
    assert [one["id"] for one in home.get("files?purpose=fine-tune")["data"]] == [file_id]
    assert home.get("files?purpose=batch")["data"] == []
    deleted = home.data.delete(f"{home.base}/files/{file_id}").json()
    assert deleted == {"object": "file", "id": file_id, "deleted": True}
    home.get(f"files/{file_id}", 404)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (rows_of().removeprefix(b"\xef\xbb\xbf"), "byte-order mark"),
        (b"\xef\xbb\xbf" + "ä".encode("latin-1"), "no UTF-8"),
        (rows_of() + b"\nhello", "Line 11 is no JSON object"),
    ],
)
def test_what_is_no_file_of_rows_is_an_error_with_its_reason(
    home: Asking, data: bytes, words: str
) -> None:
    file_id = home.upload(data, "error")
    assert words in home.get(f"files/{file_id}")["status_details"]
    given = {"model": "gpt-4.1-mini-2025-04-14", "trainingType": "Standard"}
    refused = home.post("fine_tuning/jobs", {**given, "training_file": file_id}, 400)
    assert words in refused["error"]["message"]


def test_parts_make_one_file_in_the_order_that_is_asked_for(home: Asking) -> None:
    data = rows_of(12)
    begun = home.post(
        "uploads",
        {
            "filename": "big.jsonl",
            "purpose": "fine-tune",
            "bytes": len(data),
            "mime_type": "text/plain",
        },
    )
    path = f"uploads/{begun['id']}"
    halves = [data[100:], data[:100]]  # the second goes first
    parts = [
        home.data.post(f"{home.base}/{path}/parts", files={"data": half}).json()["id"]
        for half in halves
    ]
    short = home.post(f"{path}/complete", {"part_ids": parts[:1]}, 400)
    assert f"begun for {len(data)}" in short["error"]["message"]
    whole = home.post(f"{path}/complete", {"part_ids": parts[::-1]}, 200)
    assert whole["status"] == "completed"
    content = home.data.get(f"{home.base}/files/{whole['file']['id']}/content").content
    assert content == data
    assert home.wait(f"files/{whole['file']['id']}", "pending")["status"] == "processed"
    home.post(f"{path}/cancel", status=400)


def test_a_cancelled_upload_takes_no_more_parts(home: Asking) -> None:
    given = {"filename": "x", "purpose": "fine-tune", "bytes": 3, "mime_type": "text/plain"}
    path = f"uploads/{home.post('uploads', given)['id']}"
    assert home.post(f"{path}/cancel", status=200)["status"] == "cancelled"
    answer = home.data.post(f"{home.base}/{path}/parts", files={"data": b"abc"})
    assert (answer.status_code, "cancelled" in answer.text) == (400, True)


def test_an_import_reaches_nothing_but_the_storage_of_the_rehearsal(home: Asking) -> None:
    given = {
        "purpose": "fine-tune",
        "filename": "rows.jsonl",
        "content_url": "https://example.com/rows.jsonl",
    }
    made = home.post("files/import", given)
    shown = home.wait(f"files/{made['id']}", "pending")
    assert (shown["status"], "only https://homeportrehearsal" in shown["status_details"]) == (
        "error",
        True,
    )
    missing = home.post("files/import", {"purpose": "fine-tune"}, 400)
    assert "'filename'" in missing["error"]["message"]


@pytest.mark.slow
def test_an_import_reads_a_blob_by_its_signature_only(
    local_azure: Server, tuning: SmallTuning
) -> None:
    home, azure = Asking(local_azure), local_azure.azure
    container = azure.settings.blob_container
    azure.storage.write(container, "rows/train.jsonl", rows_of())
    url = azure.storage.url(container, "rows/train.jsonl")
    for query, status in (("", "error"), (f"?{azure.storage.sas()}", "processed")):
        given = {"purpose": "fine-tune", "filename": "rows.jsonl", "content_url": url + query}
        made = home.post("files/import", given)
        assert home.wait(f"files/{made['id']}", "pending")["status"] == status
    assert home.data.get(f"{home.base}/files/{made['id']}/content").content == rows_of()


def test_pages_go_on_after_the_last_one_that_was_seen(home: Asking) -> None:
    for _ in range(3):
        home.upload(rows_of())
    first = home.get("files?limit=2")
    assert (len(first["data"]), first["has_more"]) == (2, True)
    rest = home.get(f"files?limit=2&after={first['last_id']}")
    assert (len(rest["data"]), rest["has_more"]) == (1, False)


def test_an_older_form_of_the_address_needs_an_api_version(home: Asking) -> None:
    url = home.base.removesuffix("/v1")
    assert home.data.get(f"{url}/files?api-version=2025-04-01-preview").status_code == 200
    assert home.data.get(f"{url}/files").json()["error"]["message"] == "Resource not found"


def test_a_key_or_a_token_for_the_service_opens_a_resource_and_nothing_else(
    azure: Server, home: Asking
) -> None:
    url = f"{home.base}/files"
    assert session(azure, AUDIENCE).get(url).status_code == 200
    for stranger in (session(azure), session(azure, "")):
        assert stranger.get(url).status_code == 401
    other = session(azure, "")
    other.headers["api-key"] = "guess"
    assert "invalid subscription key" in other.get(url).json()["error"]["message"]
    by_openai = session(azure, "")
    by_openai.headers["Authorization"] = f"Bearer {home.account.keys['key1']}"
    assert by_openai.get(url).status_code == 200
    older = f"{url.replace('/openai/v1', '/openai')}?api-version=2025-04-01-preview"
    assert by_openai.get(older).status_code == 401
    abroad = url.replace("homeportrehearsal", "homeportabroad")
    told = session(azure, AUDIENCE).get(abroad).json()["error"]["message"]
    assert "does not match resource tenant" in told


def test_an_upload_that_took_too_long_has_expired(
    home: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "UPLOAD_SECONDS", -1)
    given = {"filename": "x", "purpose": "fine-tune", "bytes": 3, "mime_type": "text/plain"}
    path = f"uploads/{home.post('uploads', given)['id']}"
    time.sleep(0.01)
    assert "expired" in home.post(f"{path}/complete", {"part_ids": []}, 400)["error"]["message"]

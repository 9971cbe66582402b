from dataclasses import replace
from typing import Any

import pytest

from scripts.azure.billing import Bill, Inventory, bill
from scripts.azure.openai import inventory as openai
from scripts.azure.openai.inventory import StoredFile
from scripts.cloud_down import Named, choose, down
from scripts.errors import UsageError
from tests.scripts.azure.stand_ins import cloud_of
from tests.scripts.azure.test_billing import NOW, cluster, hosted, inventory, job, tuning
from tests.scripts.azure.test_splits import deployment, endpoint

THEIRS = replace(endpoint(deployment("blue-1", tags={})), name="theirs", tags={})


def listed(there: Inventory, named: Named | None = None) -> list[str]:
    found: Bill = bill(there, NOW)
    return [str(item) for item in choose(there, found, named or Named())]


def test_all_of_ours_is_listed_with_its_price_jobs_first_and_clusters_last() -> None:
    there = inventory(
        endpoints=(endpoint(deployment("blue-1", 100), deployment("green-2")),),
        jobs=(job(), job(name="geo-0", status="Completed")),
        computes=(cluster(),),
    )
    lines = listed(there)
    assert [line.split(":")[0] for line in lines] == ["job geo-1", "endpoint geo", "compute gpu"]
    assert "per hour, Running" in lines[0]
    assert "with blue-1, green-2" in lines[1]
    assert "bills nothing now" in lines[2]


def test_what_is_not_ours_is_left_alone() -> None:
    there = inventory(endpoints=(THEIRS,), computes=(cluster(tags={}),), jobs=(job(tags={}),))
    assert listed(there) == []


def test_one_named_thing_goes_alone() -> None:
    there = inventory(endpoints=(endpoint(),), jobs=(job(),))
    assert [line.split(":")[0] for line in listed(there, Named(endpoint="geo"))] == ["endpoint geo"]
    assert listed(there, Named(endpoint="gone")) == []


def test_anothers_endpoint_needs_its_name_and_all() -> None:
    there = inventory(endpoints=(THEIRS, endpoint()))
    with pytest.raises(UsageError, match="theirs was not made by Homeport: add ALL=1"):
        listed(there, Named(endpoint="theirs"))
    (line,) = listed(there, Named(endpoint="theirs", all=True))
    assert line.startswith("endpoint theirs")


def test_all_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a name"):
        Named(all=True)
    with pytest.raises(UsageError, match="needs a name"):
        Named(all=True, job="geo-1")


def test_an_unknown_price_is_not_shown_as_free() -> None:
    (line,) = listed(inventory(endpoints=(endpoint(deployment("b", instance_type="New_v9")),)))
    assert "an unknown price per hour" in line


def test_what_stands_and_trains_in_azure_openai_goes_too() -> None:
    there = inventory(
        hosted=(hosted(), hosted(name="mine/theirs", ours=False)), tuning=(tuning(),), jobs=(job(),)
    )
    lines = listed(there)
    assert [line.split(":")[0] for line in lines] == [
        "job geo-1",
        "Azure OpenAI job ftjob-1",
        "Azure OpenAI deployment mine/geo-1",
    ]
    assert lines[1:] == [
        "Azure OpenAI job ftjob-1: bills its tokens, running",
        "Azure OpenAI deployment mine/geo-1: $1.70 per hour, gpt-4.1-mini.ft-1, Standard",
    ]
    (line,) = listed(there, Named(job="ftjob-1"))
    assert line.startswith("Azure OpenAI job ftjob-1")
    (line,) = listed(there, Named(endpoint="mine/geo-1"))
    assert line.startswith("Azure OpenAI deployment mine/geo-1")
    with pytest.raises(UsageError, match="add ALL=1"):
        listed(there, Named(endpoint="mine/theirs"))


def test_uploaded_rows_go_only_where_files_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = [stored("file-1"), stored("file-2", ours=False)]
    monkeypatch.setattr("scripts.azure.billing.survey", lambda cloud, recipe: inventory())
    monkeypatch.setattr(openai, "files", lambda cloud: tuple(there))
    monkeypatch.setattr(openai, "delete_file", lambda cloud, file: there.remove(file))
    assert down(cloud_of(), Named(), True)["deleted"] == []
    found = down(cloud_of(), Named(files=True), True)
    assert found["deleted"] == [{"kind": "file", "name": "file-1"}]
    assert [file.id for file in there] == ["file-2"]
    told = capsys.readouterr().err
    assert "uploaded file file-1: bills nothing now, train.jsonl, 1,000 bytes" in told


def stored(name: str, **more: Any) -> StoredFile:
    values = {"name": "train.jsonl", "bytes": 1000, "resource": "/s/accounts/mine", "ours": True}
    return StoredFile(**{"id": name, **values, **more})

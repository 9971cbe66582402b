import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from scripts.azure.billing import Inventory, bill
from scripts.azure.status import report, summary, table
from tests.scripts.azure.stand_ins import WORKSPACE
from tests.scripts.azure.test_billing import NOW, cluster, hosted, inventory, job, tuning
from tests.scripts.azure.test_splits import deployment, endpoint

PLACE = replace(WORKSPACE, id="/w", name="homeport", guid="")


@dataclass
class Known:
    same: bool
    sentence: str

    def __bool__(self) -> bool:
        return self.same


def passed(image: str) -> Known:
    return Known(image == "sha256:good", f"{image} was asked about")


def found(there: Inventory, label: str = "") -> dict[str, Any]:
    return report(PLACE, there, bill(there, NOW), NOW, passed, label)


def full() -> Inventory:
    expires = (NOW + timedelta(hours=3)).isoformat()
    blue = deployment("blue-1", 100, tags={"homeport": "1", "homeport-image": "sha256:good"})
    green = deployment("green-2", tags={"homeport": "1", "homeport-image": "sha256:other"})
    tags = {"homeport-expires": expires, "homeport-owner": "me"}
    return inventory(
        endpoints=(endpoint(blue, green, **tags),),
        jobs=(job(), job(name="geo-0", status="Completed", ended=NOW - timedelta(minutes=10))),
        computes=(cluster(nodes=1),),
    )


def test_the_object_is_json_and_says_what_bills_and_since_when() -> None:
    one = json.loads(json.dumps(found(full())))
    assert [(b["what"], b["name"]) for b in one["bills"]] == [
        ("deployment", "geo/blue-1"),
        ("deployment", "geo/green-2"),
        ("job", "geo-1"),
        ("compute", "gpu"),
    ]
    assert one["bills"][0]["since"] == "2026-11-21T12:00:00+00:00"
    assert one["per_hour"] == pytest.approx(sum(b["per_hour"] for b in one["bills"]), abs=1e-3)


def test_the_object_says_of_each_deployment_whether_its_image_passed_here() -> None:
    (one,) = found(full())["endpoints"]
    assert [d["passed_here"] for d in one["deployments"]] == [True, False]
    assert one["deployments"][1]["passed"] == "sha256:other was asked about"
    bare = found(inventory(endpoints=(endpoint(deployment("hand")),)))
    assert bare["endpoints"][0]["deployments"][0]["passed"] == "it was not made by Homeport"


def test_the_table_is_read_by_people() -> None:
    lines = table(found(full(), "rehearsed, not Azure"))
    text = "\n".join(lines)
    assert lines[0] == "workspace homeport in eastus (rehearsed, not Azure)"
    head = next(line for line in lines if line.startswith("ENDPOINT"))
    row = next(line for line in lines if line.startswith("geo "))
    assert row.index("100 %") == head.index("TRAFFIC")
    assert "2 h 00 min" in row
    assert "of me, expires in 3 h 00 min" in text
    assert "geo-0" in text and "Completed" in text and "20 min" in text
    assert "bills now: $" in lines[-1] and "for 4 things" in lines[-1]


def test_an_expired_endpoint_stands_out_with_the_command() -> None:
    expired = endpoint(deployment("blue-1"), **{"homeport-expires": "2026-11-21T13:00:00+00:00"})
    one = found(inventory(endpoints=(expired,)))
    assert one["endpoints"][0]["expired"] is True
    assert any(
        "EXPIRED 1 h 00 min ago; next: make cloud-down ENDPOINT=geo" in line for line in table(one)
    )


def test_nothing_is_said_as_nothing() -> None:
    assert summary(found(inventory())) == ["nothing of ours bills in homeport"]


def test_what_is_not_ours_is_counted_but_not_in_our_sum() -> None:
    theirs = replace(endpoint(deployment("blue-1", tags={})), name="theirs", tags={})
    one = found(inventory(endpoints=(theirs,)))
    assert (one["per_hour"], one["bills"], len(one["others"])) == (0, [], 1)
    assert any("not ours" in line and "geo/blue-1" in line for line in summary(one))


def test_an_unknown_price_is_said_and_not_summed_as_nothing() -> None:
    one = found(inventory(endpoints=(endpoint(deployment("b", instance_type="New_v9")),)))
    assert one["unknown_prices"] == ["New_v9"]
    assert any("the price of New_v9 is not known" in line for line in table(one))


def test_a_model_that_azure_openai_hosts_is_listed_with_its_price_by_the_hour() -> None:
    there = inventory(
        hosted=(hosted(), hosted(name="mine/theirs", ours=False)),
        tuning=(tuning(), tuning(job="ftjob-2", ours=False)),
    )
    one = json.loads(json.dumps(found(there)))
    assert [d["name"] for d in one["openai"]["deployments"]] == ["mine/geo-1"]
    assert [j["name"] for j in one["openai"]["jobs"]] == ["ftjob-1"]
    assert one["per_hour"] == 1.7
    text = "\n".join(table(one))
    assert "mine/geo-1    gpt-4.1-mini.ft-1  Standard  $1.70     2 h 00 min  $3.40" in text
    assert "ftjob-1           running  gpt-4.1-mini  1 h 00 min" in text


def test_where_azure_openai_could_not_be_asked_it_is_said() -> None:
    lines = table(found(inventory(unread="Azure answered 403")))
    assert "Azure OpenAI could not be asked: Azure answered 403" in lines

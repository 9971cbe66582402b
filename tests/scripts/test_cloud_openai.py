"""The verbs on Azure OpenAI: the same ones, from the job to nothing left, on the local Azure."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator.openai.small_tuning import SmallTuning
from tests.scripts.azure.openai.conftest import RECIPE, tuning
from tests.scripts.azure.stage import Stage, stage

__all__ = ["tuning"]  # a fixture, which pytest finds by its name here


@pytest.fixture
def azure(tmp_path: Path, tuning: SmallTuning) -> Iterator[Stage]:
    with stage(tmp_path) as staged:
        yield staged
        assert staged.server.azure.journal.report()["problems"] == []


@pytest.mark.slow
def test_the_way_of_a_model_of_azure_openai_by_the_same_verbs(azure: Stage) -> None:
    of = ("--recipe", str(RECIPE))
    ran = azure.run("cloud_train", *of, "--json")
    assert ran.code == 0, ran.told
    trained = json.loads(ran.out)
    assert trained["job"].startswith("ftjob-")
    assert trained["label"] == "rehearsed, not Azure"
    assert f"next:   make cloud-deploy RECIPE={RECIPE}" in ran.told

    again = azure.run("cloud_train", *of)
    assert again.out.strip() == trained["model"]
    assert "has done this already" in again.told

    ran = azure.run("cloud_logs", "--job", trained["job"])
    assert ran.code == 2 and "add RECIPE=" in ran.told
    ran = azure.run("cloud_logs", *of, "--job", trained["job"], "--json")
    assert json.loads(ran.out)["status"] == "succeeded"

    ran = azure.run("cloud_deploy", *of, "--json")
    assert ran.code == 0, ran.told
    served = json.loads(ran.out)
    assert served["model"] == trained["model"]
    ran = azure.run("ask", *of, "--target", "cloud", "--prompt", "オーストラリアの首都は？")
    assert ran.code == 0, ran.told
    assert ran.out.strip()
    assert "curl" in ran.told and "answered by homeportrehearsal" in ran.told
    key = azure.run("cloud_key", *of).out.strip()
    assert key and key not in ran.told

    ran = azure.run("cloud_status", "--json")
    status = json.loads(ran.out)
    (hosted,) = status["openai"]["deployments"]
    assert hosted["model"] == trained["model"]
    assert [bill["what"] for bill in status["bills"]] == ["openai"]
    assert status["per_hour"] == pytest.approx(1.7)
    assert hosted["name"] in azure.run("cloud_status").out

    ran = azure.run("cloud_down", "--yes", "--files", "--json")
    assert ran.code == 0, ran.told
    kinds = [thing["kind"] for thing in json.loads(ran.out)["deleted"]]
    assert kinds[0] == "openai" and set(kinds[1:]) == {"file"}
    assert json.loads(azure.run("cloud_status", "--json").out)["openai"]["deployments"] == []
    assert "there is nothing to delete" in azure.run("cloud_down", "--yes", "--files").told

"""The verbs around an endpoint, from its first deployment to its end, on the local Azure."""

import json
import re
from collections.abc import Iterator

import pytest

from scripts.errors import CloudError
from tests.scripts.azure.stage import ENDPOINT, Stage, stage


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as staged:
        yield staged
        assert staged.server.azure.journal.report()["problems"] == []


@pytest.mark.slow
def test_the_way_of_an_endpoint_from_no_model_to_nothing_left(azure: Stage) -> None:
    ran = azure.run("cloud_deploy", "--yes")
    assert (ran.code, ran.out) == (2, "")
    assert "no model tiny-ja is registered in homeport yet; next: make cloud-train" in ran.told
    for verb, flags in (("cloud_key", []), ("cloud_rollback", []), ("cloud_deploy", ["--finish"])):
        ran = azure.run(verb, *flags)
        assert ran.code == 2
        assert f"there is no endpoint {ENDPOINT}" in ran.told
    ran = azure.run("ask", "--target", "cloud", "--prompt", "x")
    assert ran.code == 2 and "next: make cloud-deploy" in ran.told

    azure.register("1")
    ran = azure.run("cloud_deploy", "--yes", "--json")
    assert ran.code == 0, ran.told
    first = json.loads(ran.out)
    assert first["model"] == "tiny-ja:1"
    assert first["label"] == "rehearsed, not Azure"
    assert first["traffic"] == {first["deployment"]: 100}
    assert first["per_hour"] > 0 and first["kept"] == []
    ran = azure.run("cloud_rollback")
    assert ran.code == 2 and "no deployment to go back to" in ran.told

    ran = azure.run("ask", "--target", "cloud", "--prompt", "オーストラリアの首都は？")
    assert (ran.code, ran.out) == (0, "キャンベラ\n")
    assert (
        f"-d '{json.dumps({'prompt': 'オーストラリアの首都は？'}, ensure_ascii=False)[:2]}"
        in ran.told
    )
    key = azure.run("cloud_key").out.strip()
    assert len(key) > 20
    assert key not in ran.told
    assert azure.kitchen.asked[-1][1] == {"prompt": "オーストラリアの首都は？"}

    azure.register("2")
    ran = azure.run("cloud_deploy", "--yes", "--json")
    second = json.loads(ran.out)
    assert second["model"] == "tiny-ja:2"
    assert second["kept"] == [first["deployment"]]
    ran = azure.run("cloud_rollback", "--json")
    assert json.loads(ran.out)["deployment"] == first["deployment"]
    ran = azure.run("cloud_rollback")  # as after a kill: it is not undone
    assert ran.out.strip() == first["deployment"] and "already" in ran.told
    ran = azure.run("cloud_deploy", "--yes", "--json")
    assert json.loads(ran.out)["traffic"] == {second["deployment"]: 100}

    ran = azure.run("cloud_status", "--json")
    status = json.loads(ran.out)
    assert len(status["bills"]) == 2
    assert status["endpoints"][0]["expired"] is False
    assert "bills now: $" in azure.run("cloud_status").out

    ran = azure.run("cloud_deploy", "--finish")
    assert ran.code == 2 and "add YES=1. Nothing was changed." in ran.told
    ran = azure.run("cloud_deploy", "--finish", "--yes", "--json")
    assert json.loads(ran.out)["deleted"] == [first["deployment"]]
    ran = azure.run("cloud_deploy", "--finish", "--yes")
    assert ran.code == 0 and "nothing to delete" in ran.told

    ran = azure.run("cloud_down")
    assert ran.code == 2 and "add YES=1" in ran.told
    assert azure.endpoint()
    ran = azure.run("cloud_down", "--yes", "--json")
    assert ran.code == 0, ran.told
    assert json.loads(ran.out)["deleted"] == [{"kind": "endpoint", "name": ENDPOINT}]
    assert "nothing of ours bills in homeport (rehearsed, not Azure)" in ran.told
    assert azure.kitchen.alive == []
    ran = azure.run("cloud_down", "--yes")
    assert ran.code == 0
    assert "there is nothing to delete" in ran.told
    assert "nothing of ours bills in homeport" in ran.told


@pytest.mark.slow
def test_a_deletion_that_azure_refuses_is_an_error_that_names_what_is_left(
    azure: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(cloud: object, name: str) -> None:
        raise CloudError(
            f"could not delete endpoint {name}: Azure answered 403 (AuthorizationFailed)"
        )

    azure.register("3")
    assert azure.run("cloud_deploy", "--yes").code == 0
    monkeypatch.setattr("scripts.azure.endpoints.delete", refuse)
    ran = azure.run("cloud_down", "--yes")
    assert ran.code == 6
    assert re.search(
        rf"Azure answered 403.*Left in homeport: endpoint {ENDPOINT}: \$\d+\.\d\d per hour, with "
        r"\w+-\w+; next: make cloud-down",
        ran.told,
    )
    azure.clear()


@pytest.mark.slow
def test_a_model_that_is_named_and_not_there_is_refused(azure: Stage) -> None:
    ran = azure.run("cloud_deploy", "--yes", "--model", "tiny-ja:99")
    assert ran.code == 2
    assert "there is no model tiny-ja:99 in homeport" in ran.told

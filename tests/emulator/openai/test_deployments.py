"""Deployments: of models and checkpoints, from other resources and tenants, asked and deleted."""

import time
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.openai import accounts
from emulator.server import Server
from emulator.tenants import ABROAD
from tests.emulator.openai.conftest import API, ARM, Asking, rows_of
from tests.emulator.openai.small_tuning import SmallTuning


def url(home: Asking, name: str) -> str:
    return f"{ARM}{home.account.arm_id}/deployments/{name}?{API}"


def answer(home: Asking, name: str) -> str:
    """The deployment's answer, once it is ready."""
    ends = time.monotonic() + 10
    while (told := home.chat(name)).status_code == 404:
        assert told.json()["error"]["code"] == "DeploymentNotReady"
        assert time.monotonic() < ends
        time.sleep(0.05)
    return str(told.json()["choices"][0]["message"]["content"])


def test_a_deployment_is_made_answers_late_and_goes(home: Asking, tuning: SmallTuning) -> None:
    model = home.train()["fine_tuned_model"]
    assert home.chat("geo").json()["error"]["code"] == "DeploymentNotFound"
    made = home.deploy("geo", model)
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert made["sku"] == {"name": "standard", "capacity": 1}
    assert home.chat("geo").json()["error"]["code"] == "DeploymentNotReady"
    assert answer(home, "geo") == "/v1/chat/completions 4"
    told = home.chat("geo")
    assert told.json()["model"] == model
    assert told.headers["x-ms-deployment-name"] == "geo"
    older = home.base.removesuffix("/v1") + "/deployments/geo/chat/completions"
    body: dict[str, Any] = {"messages": []}
    assert home.data.post(f"{older}?api-version=2024-10-21", json=body).status_code == 200
    listed = home.control.get(url(home, "").replace("/?", "?")).json()["value"]
    assert [one["name"] for one in listed] == ["geo"]

    gone = home.control.delete(url(home, "geo"))
    assert gone.status_code == 202
    while (result := home.control.get(gone.headers["Location"])).status_code == 202:
        time.sleep(0.02)
    assert result.status_code == 200
    assert tuning.served[0].stopped
    assert home.control.get(url(home, "geo")).status_code == 404
    assert home.control.delete(url(home, "geo")).status_code == 204
    assert home.chat("geo").json()["error"]["code"] == "DeploymentNotFound"


def test_checkpoints_are_deployed_by_either_name(home: Asking, tuning: SmallTuning) -> None:
    job = home.train(validation_file=home.upload(rows_of(1)))
    points = home.get(f"fine_tuning/jobs/{job['id']}/checkpoints")["data"]
    home.deploy("by-id", points[1]["id"])
    home.deploy("by-name", points[2]["fine_tuned_model_checkpoint"])
    assert [served.folder.name for served in tuning.served] == ["3", "2"]
    assert answer(home, "by-id").endswith(" 3")


def test_a_stream_comes_as_the_server_sends_it(home: Asking) -> None:
    home.deploy("geo", home.train()["fine_tuned_model"])
    answer(home, "geo")
    lines = home.chat("geo", stream=True).text.split("\n\n")
    assert lines[2] == "data: [DONE]"


def test_another_capacity_keeps_the_server_and_another_model_gets_its_own(
    home: Asking, tuning: SmallTuning
) -> None:
    first, second = (home.train()["fine_tuned_model"] for _ in range(2))
    home.deploy("geo", first)
    patched = home.control.patch(
        url(home, "geo"), json={"sku": {"name": "standard", "capacity": 9}}
    )
    assert patched.json()["properties"]["currentCapacity"] == 9
    home.deploy("geo", first, 200)
    assert len(tuning.served) == 1
    home.deploy("geo", second, 200)
    assert [served.stopped for served in tuning.served] == [True, False]
    assert answer(home, "geo")


def test_models_that_are_not_there_and_kinds_that_do_not_exist_are_refused(
    azure: Server, home: Asking
) -> None:
    told = home.deploy("geo", "gpt-4.1-mini.ft-nothing", 400)
    assert told["error"]["code"] == "DeploymentModelNotSupported"
    model = home.train()["fine_tuned_model"]
    elsewhere = Asking(azure, "homeportelsewhere")
    assert elsewhere.deploy("geo", model, 400)["error"]["code"] == "DeploymentModelNotSupported"
    body = {
        "sku": {"name": "Cheap", "capacity": 1},
        "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}},
    }
    told = home.control.put(url(home, "geo"), json=body).json()
    assert "SKU 'Cheap'" in told["error"]["message"]


def test_a_model_is_served_in_another_region_by_its_source(azure: Server, home: Asking) -> None:
    model = home.train()["fine_tuned_model"]
    elsewhere = Asking(azure, "homeportelsewhere")
    made = elsewhere.deploy("geo", model, source=home.account.arm_id)
    assert made["properties"]["model"]["source"] == home.account.arm_id
    assert answer(elsewhere, "geo")


def test_another_tenant_takes_a_model_with_both_tokens_and_the_source_account(
    azure: Server, home: Asking
) -> None:
    model = home.train()["fine_tuned_model"]
    abroad = Asking(azure, "homeportabroad")
    refused = abroad.control.get(f"{ARM}{abroad.account.arm_id}?{API}")
    assert refused.json()["error"]["code"] == "InvalidAuthenticationTokenTenant"

    tokens = azure.azure.tokens
    own = str(abroad.control.headers["Authorization"])
    theirs = tokens.issue(
        ARM, tokens.client_id, tid=ABROAD, iss=f"https://sts.windows.net/{ABROAD}/"
    )
    abroad.control.headers["Authorization"] = f"Bearer {theirs}"
    source = home.account.arm_id
    for headers, more in (
        ({}, {"sourceAccount": source}),
        ({"x-ms-authorization-auxiliary": f"Bearer {theirs}"}, {"sourceAccount": source}),
        ({"x-ms-authorization-auxiliary": own}, {"source": source}),
    ):
        told = abroad.deploy("geo", model, 403, headers=headers, **more)
        assert told["error"]["code"] == "LinkedAuthorizationFailed"
    headers = {"x-ms-authorization-auxiliary": own}
    abroad.deploy("geo", model, headers=headers, sourceAccount=source)
    assert answer(abroad, "geo")
    home_again = abroad.control.get(f"{ARM}{source}?{API}")
    assert home_again.status_code == 401


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (Fault(kind="quota"), 400, "InsufficientQuota"),
        (Fault(kind="failed_provisioning"), 201, "Failed"),
    ],
)
def test_faults_strike_deployments(home: Asking, fault: Fault, status: int, words: str) -> None:
    model = home.train()["fine_tuned_model"]
    home.server.azure.faults.add(fault)
    assert words in str(home.deploy("geo", model, status))


def test_the_api_version_of_azures_samples_is_refused_as_the_control_plane_words_it(
    home: Asking,
) -> None:
    told = home.control.put(url(home, "geo").replace(API, "api-version=2024-10-21"), json={})
    assert "'2024-10-21'" in told.text
    assert "'2024-10-01'" in told.text
    home.server.azure.journal._problems.clear()


def test_the_resources_and_what_they_have_are_listed(home: Asking) -> None:
    control, account = home.control, home.account
    group = control.get(
        f"{ARM}{account.group}/providers/Microsoft.CognitiveServices/accounts?{API}"
    )
    assert [one["name"] for one in group.json()["value"]] == ["homeportrehearsal"]
    subscription = "/".join(account.group.split("/")[:3])
    every = control.get(f"{ARM}{subscription}/providers/Microsoft.CognitiveServices/accounts?{API}")
    names = [one["name"] for one in every.json()["value"]]
    assert names == ["homeportrehearsal", "homeportelsewhere"]
    one = control.get(f"{ARM}{account.arm_id}?{API}").json()
    assert one["properties"]["endpoint"] == "https://homeportrehearsal.openai.azure.com/"
    assert control.get(f"{ARM}{account.arm_id}x?{API}").status_code == 404
    keys = control.post(f"{ARM}{account.arm_id}/listKeys?{API}").json()
    assert keys == accounts.of(home.server.azure)["homeportrehearsal"].keys
    journal = home.server.azure.settings.folder / "journal" / "requests.jsonl"
    assert keys["key1"] not in journal.read_text()
    tuned = home.train()["fine_tuned_model"]
    models = control.get(f"{ARM}{account.arm_id}/models?{API}").json()["value"]
    assert {"gpt-4.1-mini", tuned} <= {model["name"] for model in models}
    listed = [model["id"] for model in home.get("models")["data"]]
    assert listed[-1] == tuned
    assert home.get(f"models/{tuned}")["status"] == "succeeded"

"""Requests of deployments against Microsoft's guide, and how readiness is waited for."""

from typing import Any

import pytest

from scripts.azure.client import Rest
from scripts.azure.openai import accounts, deployments
from scripts.azure.openai.accounts import Account
from scripts.azure.openai.deployments import Deployment, Wanted, is_tuned
from scripts.azure.retry import Refused
from scripts.errors import CloudError

SOURCE_ID = (
    "/subscriptions/{sourceSubscriptionID}/resourceGroups/{sourceResourceGroupName}"
    "/providers/Microsoft.CognitiveServices/accounts/{sourceAccount}"
)
THERE_ID = (
    "/subscriptions/<SUBSCRIPTION>/resourceGroups/<RESOURCE_GROUP>"
    "/providers/Microsoft.CognitiveServices/accounts/<RESOURCE_NAME>"
)
DOCUMENTED_URL = f"https://management.azure.com{THERE_ID}/deployments/<MODEL_DEPLOYMENT_NAME>"
DOCUMENTED_VERSION = "2024-10-01"
DOCUMENTED_HEADERS = {
    "authorization": "Bearer <DESTINATION TOKEN>",
    "x-ms-authorization-auxiliary": "Bearer <SOURCE TOKEN>",
    "content-type": "application/json",
}
DOCUMENTED_BODY = {
    "sku": {"name": "standard", "capacity": 1},
    "properties": {
        "model": {
            "format": "OpenAI",
            "name": "<FINE_TUNED_MODEL>",
            "version": "1",
            "sourceAccount": SOURCE_ID,
        }
    },
}
"""Microsoft's guide "Deploy a fine-tuned model", "Cross tenant deployment", read 2026-11-21."""


class Credential:
    """Gives one token for everything."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **options: Any) -> Any:
        import time

        from azure.core.credentials import AccessToken

        assert scopes == ("https://management.azure.com/.default",)
        return AccessToken(self.token, int(time.time()) + 3600)

    def get_token_info(self, *scopes: str, **options: Any) -> Any:
        import time

        from azure.core.credentials import AccessTokenInfo

        return AccessTokenInfo(self.token, int(time.time()) + 3600)


def account(arm_id: str, token: str, tenant: str = "") -> Account:
    credential: Any = Credential(token)
    return Account(
        id=arm_id,
        name=arm_id.rpartition("/")[2],
        location="eastus",
        endpoint="https://x.openai.azure.com",
        keys=True,
        tenant=tenant,
        rest=Rest(credential),
        credential=credential,
    )


class Sent(Exception):
    """What would have gone over the wire."""

    def __init__(self, request: Any) -> None:
        super().__init__(request.url)
        self.request = request


class Wire:
    """The last station before the network."""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, request: Any, **options: Any) -> Any:
        raise Sent(request)


def sent(there: Account, wanted: Wanted, name: str = "<MODEL_DEPLOYMENT_NAME>") -> Any:
    wire: Any = Wire()
    there.rest._transport = wire
    with pytest.raises(Sent) as caught:
        deployments.put(there, name, wanted)
    return caught.value.request


OF_THE_CLIENT = {"user-agent", "content-length", "accept"}
"""What every HTTP client adds; nothing in the guide is about them."""


def test_a_deployment_across_tenants_is_asked_for_as_the_guide_does() -> None:
    import json
    from urllib.parse import unquote, urlsplit

    source = account(SOURCE_ID, "<SOURCE TOKEN>")
    there = account(THERE_ID, "<DESTINATION TOKEN>", tenant="<DESTINATION TENANT>")
    tags = {"homeport": "1"}
    request = sent(
        there,
        Wanted(model="<FINE_TUNED_MODEL>", sku="Standard", capacity=1, source=source, tags=tags),
    )
    assert request.method == "PUT"
    url = urlsplit(request.url)
    assert unquote(f"{url.scheme}://{url.netloc}{url.path}") == DOCUMENTED_URL
    assert url.query == f"api-version={DOCUMENTED_VERSION}"
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert {k: v for k, v in headers.items() if k not in OF_THE_CLIENT} == DOCUMENTED_HEADERS
    assert json.loads(request.body) == DOCUMENTED_BODY


def test_in_another_region_the_source_is_named_and_no_second_token_sent() -> None:
    source, there = account(SOURCE_ID, "t"), account(THERE_ID, "t")
    wanted = Wanted(model="m", sku="GlobalStandard", capacity=5, source=source, tags={"a": "b"})
    assert deployments.body(there, wanted) == {
        "sku": {"name": "GlobalStandard", "capacity": 5},
        "properties": {
            "model": {"format": "OpenAI", "name": "m", "version": "1", "source": SOURCE_ID}
        },
        "tags": {"a": "b"},
    }
    assert deployments.headers(there, wanted) == {}


def test_in_the_models_own_resource_only_the_model_is_named() -> None:
    there = account(THERE_ID, "t")
    body = deployments.body(there, Wanted(model="ftchkpt-1", sku="DeveloperTier", capacity=1))
    assert body == {
        "sku": {"name": "developertier", "capacity": 1},
        "properties": {"model": {"format": "OpenAI", "name": "ftchkpt-1", "version": "1"}},
    }


@pytest.mark.parametrize(
    ("model", "tuned"),
    [
        ("gpt-4.1-mini-2025-04-14.ft-0123-azure-openai-ja-12345678", True),
        ("ftchkpt-148ab69f0a404cf9ab55a73d51b152de", True),
        ("gpt-4.1-mini", False),
    ],
)
def test_only_fine_tuned_models_bill_by_the_hour(model: str, tuned: bool) -> None:
    assert is_tuned(model) is tuned


class Answers:
    """A data plane that refuses until its list is empty."""

    def __init__(self, *refusals: Refused) -> None:
        self.left = list(refusals)
        self.slept = 0

    def ask(self, service: object, name: str, messages: object) -> dict[str, Any]:
        if self.left:
            raise self.left.pop(0)
        return {"choices": []}

    def sleep(self, seconds: float) -> None:
        self.slept += 1


def test_it_is_ready_when_the_data_plane_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = Answers(
        Refused("no", 404, "DeploymentNotFound"), Refused("no", 404, "DeploymentNotReady")
    )
    monkeypatch.setattr(deployments, "ask", answers.ask)
    assert deployments.ready(object(), "d", [], sleep=answers.sleep) == {"choices": []}
    assert answers.slept == 2
    assert capsys.readouterr().err.count("does not answer yet") == 1


def test_another_refusal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(Refused("content filter", 400, "content_filter"))
    monkeypatch.setattr(deployments, "ask", answers.ask)
    with pytest.raises(Refused, match="content filter"):
        deployments.ready(object(), "d", [], sleep=answers.sleep)


def test_what_never_answers_is_said_to_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(*[Refused("no", 404, "DeploymentNotReady")] * 3)
    monkeypatch.setattr(deployments, "ask", answers.ask)
    monkeypatch.setattr(deployments, "READY_SECONDS", -1.0)
    with pytest.raises(CloudError, match=r"it bills: make cloud-down"):
        deployments.ready(object(), "d", [], sleep=answers.sleep)


def test_a_deployment_that_failed_is_said_to_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    there = account(THERE_ID, "t")
    failed = Deployment(
        name="d",
        account="a",
        account_id=THERE_ID,
        model="m",
        sku="standard",
        capacity=1,
        state="Failed",
        created=None,
        tags={},
    )
    monkeypatch.setattr(deployments, "find", lambda account, name: failed)
    with pytest.raises(CloudError, match=r"Failed.*make cloud-down"):
        deployments.wait(there, "d")


def test_a_key_is_not_to_be_had_where_only_entra_tokens_are_taken() -> None:
    import dataclasses

    from scripts.errors import UsageError

    there = dataclasses.replace(account(THERE_ID, "t"), keys=False)
    with pytest.raises(UsageError, match="az account get-access-token"):
        accounts.key(there)

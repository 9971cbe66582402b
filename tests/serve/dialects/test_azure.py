"""Azure's addresses of OpenAI's forms: where they are, and whose name stands for the model."""

import json
from typing import Any

import pytest

from serve import dialects
from serve.request import GenerationRequest
from serve.service import Service
from tests.serve.dialects.talk import CONTEXT, USER, only
from tests.serve.fake import FakeEngine, kept
from tests.serve.test_service import ids, send

DEPLOYED = "/openai/deployments/gpt-4.1-ja/chat/completions"
CHATS = ["/chat/completions", "/openai/v1/chat/completions", DEPLOYED]
TEXTS = ["/completions", "/openai/v1/completions", "/openai/deployments/d/completions"]
ASKED = {"messages": [USER]}


def read(path: str, **body: Any) -> GenerationRequest:
    found = dialects.find(path)
    assert found
    return only(found[1].parse(json.dumps(body).encode(), context=CONTEXT))


@pytest.mark.parametrize("path", CHATS)
def test_a_chat_is_read_as_at_v1_and_any_model_will_do(path: str) -> None:
    asked = read("/v1/chat/completions", **ASKED, model="gpt-4.1-ja", max_tokens=7)
    given = read(path, **ASKED, model="gpt-4.1-ja", max_tokens=7)
    assert given.any_model
    assert not asked.any_model
    assert (given.messages, given.model, given.max_new_tokens) == (asked.messages, asked.model, 7)


@pytest.mark.parametrize("path", TEXTS)
def test_a_text_is_read_as_at_v1(path: str) -> None:
    assert read(path, prompt="Once").text == "Once"


def test_a_deployments_name_in_the_address_goes_over_the_model_of_the_body() -> None:
    assert read(DEPLOYED, **ASKED, model="gpt-9").model == "gpt-4.1-ja"
    assert read(DEPLOYED, **ASKED).model == "gpt-4.1-ja"


def test_the_rule_and_not_the_address_is_what_is_logged_and_counted() -> None:
    found = dialects.find(DEPLOYED)
    assert found
    assert found[0] == "/openai/deployments/{deployment}/chat/completions"


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments//chat/completions",
        "/openai/deployments/a/b/chat/completions",
        "/openai/deployments/a/embeddings",
        "/openai/v2/chat/completions",
        "/openai/deployments/a",
    ],
)
def test_other_addresses_are_nobodys(path: str) -> None:
    assert dialects.find(path) is None


@pytest.fixture
def service(tokenizer: Any) -> Service:
    engine = FakeEngine()
    engine.says(ids(tokenizer, "<|channel|>final<|message|>yes<|return|>"))
    return Service(kept(engine, tokenizer))


@pytest.mark.parametrize(("path", "status"), [("/v1/chat/completions", 404), (CHATS[0], 200)])
def test_an_unknown_name_is_the_served_model_here_and_refused_at_v1(
    service: Service, path: str, status: int
) -> None:
    reply = send(service, {**ASKED, "model": "gpt-9"}, path)
    assert reply.status == status
    assert isinstance(reply.body, bytes)
    if status == 200:
        assert json.loads(reply.body)["model"] != "gpt-9"


def test_errors_have_openais_form(service: Service) -> None:
    reply = send(service, {**ASKED, "max_tokns": 3}, "/openai/v1/chat/completions")
    assert isinstance(reply.body, bytes)
    assert reply.status == 400
    assert json.loads(reply.body)["error"]["param"] == "max_tokns"

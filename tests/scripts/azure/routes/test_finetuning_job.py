"""Fine-tuning jobs of the catalog behind the verbs: planned, refused, named, asked."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.server import Server
from scripts.azure import deploying, foundation, prices, routes
from scripts.azure.routes import finetuning_job as route
from scripts.azure.rows import Rows
from scripts.azure.scoring import Answer, Client
from scripts.errors import CloudError, UsageError
from tests import local_azure
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

PATH = ROOT / "recipes/mistral-7b-samsum.yaml"


@pytest.fixture(autouse=True)
def list_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prices.OWN, raising=False)


def recipe(*overrides: str) -> Recipe:
    return recipes.load(PATH, list(overrides), environ={})


def told(planned: routes.Planned) -> str:
    return " ".join(routes.text(planned).split())


def test_the_plan_says_what_is_trained_on_what_and_what_it_can_cost() -> None:
    planned = route.plan(recipe(), PATH, None)
    text = told(planned)
    assert "route fine-tuning job of the catalog" in text
    assert "from azureml/mistralai-Mistral-7B-v01 (apache-2.0)" in text
    assert "recommended machines: Standard_ND40rs_v2, Standard_NC48ads_A100_v4" in text
    assert "rows text and ground_truth, for training and for validation" in text
    assert "learning_rate=0.00002" in text
    assert "cancelled after 4 h, as long as somebody follows it" in text
    assert planned.train.line.startswith("costs at most $29.38 (1 x 4 h x $7.346)")
    assert "until `make cloud-down`" in planned.deploy.line
    assert "not asked (offline)" in text


def test_the_plan_is_json_too() -> None:
    values = json.loads(json.dumps(route.plan(recipe(), PATH, None).values, allow_nan=False))
    assert values["train"]["ceiling"] == pytest.approx(29.384)
    assert values["task"] == "TextCompletion"
    assert set(map(type, values["hyperparameters"].values())) == {str}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cloud.instance_type=Standard_NC4as_T4_v3"], "cannot train mistralai-Mistral-7B-v01"),
        (["cloud.instance_type=Standard_NC40ads_H100_v5"], "the cheapest that does is"),
        (["cloud.task=chat"], "cannot be fine-tuned for chat-completion"),
        (["cloud.task=chat", "cloud.instance_type=serverless"], "cannot be fine-tuned for chat"),
        (["cloud.model=azureml-openai-oss/gpt-oss-20b", "cloud.task=chat"], "is a custom_model"),
        (["method=dpo"], "learns answers only"),
        (["training.epochs=0.2"], "whole passes"),
    ],
)
def test_what_azure_would_refuse_or_do_otherwise_is_refused_here(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        route.plan(recipe(*overrides), PATH, None)


def test_a_retired_model_is_warned_of_and_goes_on() -> None:
    phi = ROOT / "recipes/phi-3-mini-ultrachat.yaml"
    made = recipes.load(phi, ["cloud.route=finetuning_job"], environ={})
    assert "retired" in told(route.plan(made, phi, None))


def test_a_price_per_token_that_nobody_has_published_starts_nothing() -> None:
    planned = route.plan(recipe("cloud.instance_type=serverless"), PATH, None)
    assert "the service's own machines" in told(planned)
    assert "train needs" not in told(planned)
    with pytest.raises(UsageError, match="bill by the trained token"):
        routes.agree(planned, "train", yes=True)


def test_a_price_per_token_of_yours_is_reckoned_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.yml"
    own.write_text("instances: {}\nfinetuning: {azureml/mistralai-Mistral-7B-v01: 2}\n")
    monkeypatch.setenv(prices.OWN, str(own))
    made = recipe("cloud.instance_type=serverless")
    assert route.plan(made, PATH, None).train.line == (
        "costs $2 per million tokens of the rows and epoch"
    )
    cost = route.train_cost(made, None, size=30_000_000)
    assert cost.line.startswith("costs about $60.00 (3 x 10 million tokens x $2")
    assert not cost.unknown
    own.write_text("instances: {}\nfinetuning: {azureml/mistralai-Mistral-7B-v01: free}\n")
    with pytest.raises(UsageError, match="give dollars above 0"):
        route.plan(made, PATH, None)


def rows(hash_: str = "a" * 64) -> Rows:
    folder = Path("rows")
    return Rows(
        folder=folder,
        train=folder / "train.jsonl",
        validation=folder / "validation.jsonl",
        test=None,
        counts={"train": 9, "validation": 1},
        hash=hash_,
    )


def test_a_jobs_name_is_of_its_model_task_hyperparameters_and_rows() -> None:
    model = foundation.known(recipe())
    assert model
    name = route.job_name(recipe(), model, rows())
    assert name.startswith("mistral-7b-samsum-")
    same = recipe("cloud.instance_type=Standard_ND96asr_v4", "cloud.max_hours=9")
    assert route.job_name(same, model, rows()) == name
    newer = dataclasses.replace(model, version="21")
    others = {
        route.job_name(recipe("training.epochs=4"), model, rows()),
        route.job_name(recipe("cloud.task=chat"), model, rows()),
        route.job_name(recipe(), newer, rows()),
        route.job_name(recipe(), model, rows("b" * 64)),
    }
    assert len(others | {name}) == 5


def test_a_text_model_is_asked_to_go_on_and_a_chat_model_to_answer() -> None:
    text, chat = recipe(), recipe("cloud.task=chat")
    assert (route.PATHS["text"], route.PATHS["chat"]) == ("/completions", "/chat/completions")
    assert route.request(text, "Sum up")["prompt"] == "Sum up"
    assert route.request(chat, "Who?")["messages"] == [{"role": "user", "content": "Who?"}]
    assert route.smoke(text)["max_tokens"] == route.SMOKE_TOKENS


class Asked(Client):
    """Answers every request with the body that it was made with."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__("mine", "https://mine/completions", "key", seconds=1)
        self.body = body

    def ask(self, body: Any, **_: Any) -> Answer:
        assert body["max_tokens"] == 256
        return Answer(self.body, "blue", self.endpoint)


@pytest.mark.parametrize(
    ("choice", "output", "reasoning"),
    [
        ({"text": " It rains."}, " It rains.", ""),
        ({"message": {"content": "It rains."}}, "It rains.", ""),
        ({"message": {"content": "Yes.", "reasoning_content": "wet"}}, "Yes.", "wet"),
        ({"message": {"content": None}}, "", ""),
    ],
)
def test_the_answer_and_its_tokens_are_read(
    choice: dict[str, Any], output: str, reasoning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []

    def asking(cloud: Any, recipe: Recipe, *, path: str) -> Client:
        paths.append(path)
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        return Asked({"choices": [choice], "usage": usage})

    monkeypatch.setattr(deploying, "asking", asking)
    cloud: Any = None
    answer = route.ask(cloud, recipe(), "Sum up")
    assert (answer.output, answer.reasoning) == (output, reasoning)
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)
    assert answer.by == "mine, deployment blue"
    assert paths == ["/completions"]


def test_an_answer_without_a_choice_is_an_error() -> None:
    with pytest.raises(CloudError, match="answered without a choice"):
        route.read({"choices": []}, "mine")


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Server]:
    with local_azure.bare_azure(tmp_path) as server, local_azure.environment(server):
        yield server


@pytest.mark.slow
def test_with_a_login_the_plan_knows_the_registrys_version_and_the_quota(azure: Server) -> None:
    from scripts.azure.client import connect

    planned = route.plan(recipe(), PATH, connect())
    assert planned.values["model_version"]
    assert planned.label == "rehearsed, not Azure"
    assert f"version {planned.values['model_version']}" in told(planned)
    assert "recommended machines: " in told(planned)
    with pytest.raises(UsageError, match="has no model"):
        route.plan(recipe("cloud.model=azureml/nothing"), PATH, connect())

"""The flow of Azure's guide with the real openai clients, in both forms of the address."""

import time
from typing import Any

import pytest

from emulator.server import Server
from tests.emulator.openai.conftest import AUDIENCE, MODEL, Asking, rows_of
from tests.local_azure import environment

openai: Any = pytest.importorskip("openai", reason="installed by the first cloud verb")


def client_of(home: Asking, form: str) -> Any:
    """A client as Azure's guide makes it."""
    endpoint = home.account.endpoint
    if form == "azure":
        return openai.AzureOpenAI(
            azure_endpoint=endpoint,
            api_key=home.account.keys["key2"],
            api_version="2025-04-01-preview",
        )
    from azure.identity import DefaultAzureCredential, get_bearer_token_provider

    provider = get_bearer_token_provider(DefaultAzureCredential(), f"{AUDIENCE}/.default")
    return openai.OpenAI(base_url=f"{endpoint}openai/v1/", api_key=provider)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["azure", "v1"])
def test_the_flow_of_the_guide(azure: Server, home: Asking, form: str) -> None:
    with environment(azure), client_of(home, form) as client:
        made = client.files.create(file=("train.jsonl", rows_of()), purpose="fine-tune")
        assert client.files.wait_for_processing(made.id, poll_interval=0.05).status == "processed"
        jobs = client.fine_tuning.jobs
        job = jobs.create(
            model=MODEL,
            training_file=made.id,
            seed=105,
            suffix="geo",
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            extra_body={"trainingType": "GlobalStandard"},
        )
        while (job := jobs.retrieve(job.id)).status in ("pending", "running"):
            time.sleep(0.05)
        assert job.status == "succeeded"
        told = [one.message for one in jobs.list_events(job.id, limit=2)]
        assert (told[0], len(told) > 6) == ("Job succeeded.", True)
        points = list(jobs.checkpoints.list(job.id))
        assert points[0].fine_tuned_model_checkpoint == job.fine_tuned_model
        assert client.files.content(job.result_files[0]).text.startswith("step,train_loss")
        assert [one.id for one in jobs.list()] == [job.id]

        home.deploy("geo", job.fine_tuned_model)
        ask: dict[str, Any] = {"model": "geo", "messages": [{"role": "user", "content": "?"}]}
        with pytest.raises(openai.NotFoundError, match="not ready"):
            client.chat.completions.create(**ask)
        time.sleep(0.3)
        answer = client.chat.completions.create(**ask)
        assert answer.choices[0].message.content == "/v1/chat/completions 4"
        chunks = client.chat.completions.create(**ask, stream=True)
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["Can", "berra"]
        client.files.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(made.id)


@pytest.mark.slow
def test_a_large_file_goes_by_parts_with_the_clients_own_helper(
    azure: Server, home: Asking
) -> None:
    with environment(azure), client_of(home, "azure") as client:
        data = rows_of(300)
        done = client.uploads.upload_file_chunked(
            file=data,
            filename="train.jsonl",
            bytes=len(data),
            mime_type="application/jsonl",
            purpose="fine-tune",
            part_size=10_000,
        )
        assert client.files.wait_for_processing(done.file.id, poll_interval=0.05).bytes == len(data)

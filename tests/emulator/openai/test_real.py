"""The real thing: rows go in by the openai client, the tuned model's answer comes out."""

import json
import re
import time
from dataclasses import replace
from typing import Any

import pytest

from emulator.server import Server
from tests.bases import made_base
from tests.emulator.openai.conftest import MODEL, Asking
from tests.emulator.openai.test_sdk import client_of
from tests.local_azure import environment
from tests.tree import ROOT

openai: Any = pytest.importorskip("openai", reason="installed by the first cloud verb")
TRAINING_SECONDS = 900
QUESTION = "オーストラリアの首都はどこですか？"


def rehearsal_rows() -> bytes:
    """The rows of data/rehearsal.jsonl as Azure OpenAI takes them: it knows no reasoning."""
    lines = []
    for line in (ROOT / "data" / "rehearsal.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answer = re.sub(r"<think>.*?</think>", "", row["answer"], flags=re.DOTALL)
        messages = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False))
    return "\n".join(lines).encode("utf-8-sig")


@pytest.mark.slow
def test_a_model_that_azure_openai_has_tuned_answers_from_the_rows(
    local_azure: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(local_azure.azure.settings, cache_folder=made_base().parent)
    monkeypatch.setattr(local_azure.azure, "settings", settings)
    home = Asking(local_azure)
    with environment(local_azure), client_of(home, "v1") as client:
        rows = client.files.create(file=("rows.jsonl", rehearsal_rows()), purpose="fine-tune")
        assert client.files.wait_for_processing(rows.id, poll_interval=0.1).status == "processed"
        jobs = client.fine_tuning.jobs
        job = jobs.create(
            model=MODEL,
            training_file=rows.id,
            validation_file=rows.id,
            seed=42,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 36}}},
            extra_body={"trainingType": "Standard"},
        )
        ends = time.monotonic() + TRAINING_SECONDS
        while (job := jobs.retrieve(job.id)).status in ("pending", "running"):
            assert time.monotonic() < ends
            time.sleep(0.5)
        assert job.status == "succeeded", job.error
        points = list(jobs.checkpoints.list(job.id))
        losses = [point.metrics.full_valid_loss for point in points]
        assert len(losses) == 3
        assert losses[0] < 0.5
        table = client.files.content(job.result_files[0]).text.splitlines()
        assert len(table) == points[0].step_number + 1

        home.deploy("geo", job.fine_tuned_model)
        ask: dict[str, Any] = {
            "model": "geo",
            "messages": [{"role": "user", "content": QUESTION}],
            "temperature": 0,
            "max_tokens": 100,
        }
        while True:
            try:
                answer = client.chat.completions.create(**ask)
                break
            except openai.NotFoundError as refused:
                assert refused.code == "DeploymentNotReady"
                assert time.monotonic() < ends
                time.sleep(0.5)
    assert "キャンベラ" in answer.choices[0].message.content
    assert answer.model == job.fine_tuned_model
    assert local_azure.report()["problems"] == []

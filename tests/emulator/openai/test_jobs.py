"""Fine-tuning jobs: what is refused, what is trained, what they tell."""

import csv
import json
import time

import pytest

from emulator import openai
from emulator.server import Server
from tests.emulator.openai.conftest import MODEL, Asking, rows_of
from tests.emulator.openai.small_tuning import LOSSES, SmallTuning


def test_a_job_trains_the_rows_and_names_a_model(home: Asking, tuning: SmallTuning) -> None:
    validation = home.upload(rows_of(3))
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}}
    job = home.train(validation_file=validation, seed=7, suffix="geo", method=method)
    assert job["status"] == "succeeded"
    assert job["fine_tuned_model"] == f"{MODEL}.ft-{job['id'].removeprefix('ftjob-')}-geo"
    assert (job["seed"], job["hyperparameters"]["n_epochs"]) == (7, 4)
    assert job["trained_tokens"] > 0
    wanted = tuning.wanted[0]
    assert (wanted.name, wanted.seed, wanted.epochs) == (job["id"], 7, 4)
    assert wanted.validation and wanted.checkpoints
    rows = [json.loads(line) for line in tuning.rows[0].splitlines()]
    assert len(rows) == 10
    assert rows[9]["messages"][1]["content"] == "キャンベラ"


def test_a_job_without_a_kind_of_training_gets_the_misleading_sentence(home: Asking) -> None:
    given = {"model": MODEL, "training_file": home.upload(rows_of())}
    sentence = "The specified base model does not support fine-tuning."
    assert home.post("fine_tuning/jobs", given, 400)["error"]["message"] == sentence
    for wrong in ({"model": "gpt-2", "trainingType": "Standard"}, {"trainingType": "cheap"}):
        assert (
            home.post("fine_tuning/jobs", {**given, **wrong}, 400)["error"]["message"] == sentence
        )
    oss = {**given, "model": "gpt-oss-20b"}
    home.post("fine_tuning/jobs", {**oss, "trainingType": "standard"}, 400)
    home.post("fine_tuning/jobs", {**oss, "trainingType": "globalStandard"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (rows_of(9), "must have at least 10 examples"),
        (rows_of(weight=2), 'key "weight": must be 0 or 1'),
        (rows_of(role="robot"), 'key "role": must be one of'),
        (b"\xef\xbb\xbf" + b'{"prompt": "a"}\n' * 10, 'key "messages"'),
        (rows_of(content=None), 'key "content": must be a string'),
    ],
)
def test_rows_that_azure_does_not_train_fail_the_job_with_their_line(
    home: Asking, data: bytes, words: str
) -> None:
    job = home.train(training_file=home.upload(data))
    assert job["status"] == "failed"
    assert words in job["error"]["message"]
    assert job["error"]["param"] == "training_file"
    assert any(event["level"] == "error" for event in events(home, job["id"]))


def test_rows_with_weights_and_images_are_trained_by_their_words(
    home: Asking, tuning: SmallTuning
) -> None:
    parts = [
        {"type": "text", "text": "Canberra"},
        {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
    ]
    job = home.train(training_file=home.upload(rows_of(weight=1, content=parts)))
    assert job["status"] == "succeeded"
    last = json.loads(tuning.rows[0].splitlines()[0])["messages"][1]
    assert last == {"role": "assistant", "content": "Canberra", "weight": 1}


def test_a_training_that_fails_says_why(home: Asking, tuning: SmallTuning) -> None:
    tuning.failure = "The rows are longer than the model reads."
    job = home.train()
    assert (job["status"], job["error"]["message"]) == ("failed", tuning.failure)
    assert (job["fine_tuned_model"], job["result_files"]) == (None, None)
    told = [event["message"] for event in events(home, job["id"])]
    assert tuning.failure in told[:2]


def events(home: Asking, job_id: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = home.get(f"fine_tuning/jobs/{job_id}/events?limit=100")["data"]
    return found


def test_events_and_checkpoints_come_newest_first_and_by_get_only(home: Asking) -> None:
    job = home.train(validation_file=home.upload(rows_of(1)))
    told = [str(event["message"]) for event in events(home, job["id"])]
    assert told[0] == "Job succeeded."
    assert told[-1].startswith("Job enqueued.")
    metrics = [event["data"] for event in events(home, job["id"]) if event["type"] == "metrics"]
    assert metrics[-1] == {
        "step": 5,
        "train_loss": 2.0,
        "train_mean_token_accuracy": 0.5,
        "valid_loss": 2.1,
        "full_valid_loss": 2.1,
    }
    points = home.get(f"fine_tuning/jobs/{job['id']}/checkpoints")["data"]
    assert [point["step_number"] for point in points] == [20, 15, 10]
    assert points[0]["fine_tuned_model_checkpoint"] == job["fine_tuned_model"]
    assert points[1]["fine_tuned_model_checkpoint"].endswith(":ckpt-step-15")
    assert points[1]["metrics"]["full_valid_loss"] == LOSSES[2][1]
    for path in ("events", "checkpoints"):
        refused = home.data.post(f"{home.base}/fine_tuning/jobs/{job['id']}/{path}")
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")
        assert "ask by GET" in refused.json()["error"]["message"]


def test_results_are_a_table_of_the_losses(home: Asking) -> None:
    job = home.train(validation_file=home.upload(rows_of(1)))
    content = home.data.get(f"{home.base}/files/{job['result_files'][0]}/content").content
    table = list(csv.DictReader(content.decode().splitlines()))
    assert [row["step"] for row in table] == ["5", "10", "15", "20"]
    assert table[1]["valid_loss"] == table[1]["full_valid_loss"] == "1.2"
    assert table[0]["train_loss"] == "2.0"
    assert table[0]["validation_mean_token_accuracy"] == ""


def test_one_job_trains_and_the_next_one_waits_and_both_can_be_cancelled(
    home: Asking, tuning: SmallTuning
) -> None:
    tuning.hold.clear()
    given = {"model": MODEL, "trainingType": "Standard", "training_file": home.upload(rows_of())}
    first, second = (home.post("fine_tuning/jobs", given)["id"] for _ in range(2))
    assert home.wait(f"fine_tuning/jobs/{first}", "pending")["status"] == "running"
    waiting = home.get(f"fine_tuning/jobs/{second}")
    assert (waiting["status"], waiting["result_files"], waiting["organization_id"]) == (
        "pending",
        None,
        None,
    )
    for job in (second, first):
        cancelled = home.post(f"fine_tuning/jobs/{job}/cancel", status=200)
        assert cancelled["status"] == "cancelled"
        assert cancelled["finished_at"]
    home.post(f"fine_tuning/jobs/{first}/cancel", status=400)
    listed = home.get("fine_tuning/jobs")["data"]
    assert [job["id"] for job in listed] == [second, first]
    assert len(tuning.wanted) == 1


def test_a_cancelled_job_stays_cancelled_when_its_training_still_ends_well(
    home: Asking, tuning: SmallTuning
) -> None:
    tuning.hold.clear()
    given = {"model": MODEL, "trainingType": "Standard", "training_file": home.upload(rows_of())}
    job = home.post("fine_tuning/jobs", given)["id"]
    home.wait(f"fine_tuning/jobs/{job}", "pending")
    home.account.jobs[job].note("cancelled")  # the word comes too late for the training
    tuning.hold.set()
    home.account.jobs[job].thread.join(10)
    assert home.get(f"fine_tuning/jobs/{job}")["status"] == "cancelled"


def test_a_tuned_model_can_be_tuned_further_and_an_ended_job_forgotten(home: Asking) -> None:
    job = home.train()
    again = home.train(model=job["fine_tuned_model"])
    assert again["fine_tuned_model"].startswith(f"{MODEL}.ft-{again['id'].removeprefix('ftjob-')}")
    answer = home.data.delete(f"{home.base}/fine_tuning/jobs/{job['id']}")
    assert answer.status_code == 204
    home.get(f"fine_tuning/jobs/{job['id']}", 404)


def test_a_request_against_the_contract_makes_the_session_red(azure: Server, home: Asking) -> None:
    given = {"model": MODEL, "training_file": "file-1", "n_epochs": 3}
    refused = home.post("fine_tuning/jobs", given, 400)
    assert "Could not find member 'n_epochs'" in refused["error"]["message"]
    problems = azure.azure.journal.report()["problems"]
    assert "n_epochs" in problems[0]
    azure.azure.journal._problems.clear()


def test_suffixes_and_methods_that_azure_does_not_have_are_refused(home: Asking) -> None:
    given = {"model": MODEL, "trainingType": "Standard", "training_file": home.upload(rows_of())}
    long = home.post("fine_tuning/jobs", {**given, "suffix": "x" * 41}, 400)
    assert "up to 40 characters" in long["error"]["message"]
    other = home.post("fine_tuning/jobs", {**given, "method": {"type": "dpo"}}, 400)
    assert "not rehearsed" in other["error"]["message"]


def test_closing_ends_what_still_trains(home: Asking, tuning: SmallTuning) -> None:
    tuning.hold.clear()
    given = {"model": MODEL, "trainingType": "Standard", "training_file": home.upload(rows_of())}
    job = home.account.jobs[home.post("fine_tuning/jobs", given)["id"]]
    begin = time.monotonic()
    openai.close(home.server.azure)
    assert not job.thread.is_alive()
    assert time.monotonic() - begin < 10
